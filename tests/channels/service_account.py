"""A service account as Google gives it, with a key of its own for each run."""

import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def service_account(**changes: Any) -> str:
    return json.dumps({
        "type": "service_account",
        "project_id": "p-1",
        "private_key_id": "key-1",
        "private_key": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "client_email": "sender@p-1.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        **changes,
    })


SERVICE_ACCOUNT: Final = service_account()
