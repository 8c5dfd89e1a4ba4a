"""Every key in the store, and what it holds. The partition is the hash tag, so Redis Cluster keeps its keys together.

| key | type | holds |
|---|---|---|
| `log:{p}` | stream | the partition's log; id `<seq>-0`, field `e` = msgpack array of entries |
| `epoch:{p}` | string | epoch of the partition's owner; an append with another is refused |
| `snap:{p}` | hash | `gen`, `seq`, `slices` of the valid snapshot: generation, last entry in it, number of slices |
| `snap:{p}:<gen>` | list | that snapshot's slices |
| `readers:{p}` | hash | other readers of the log: name -> last seq taken in; the log is kept from there |
| `user:{p}:<id>` | string | a user's profile, JSON |
| `dead:{p}` | hash | message id -> its dead letter, msgpack (`dispatcher.deadletter`) |
| `dead:{p}:places` | sorted set | the places of those letters, all with score 0 |
| `{catalog}:partitions` | string | number of partitions, fixed at the first start |
| `{catalog}:layout` | string | the form in which users, messages and entries are kept (`connection.LAYOUT`) |
| `{catalog}:version` | string | number of the last change |
| `{catalog}:doc:<kind>` | hash | id -> msgpack [version, at_ms, who, document JSON] |
| `{catalog}:history:<kind>:<id>` | list | the document's versions, newest first; none of blacklist entries |
| `{catalog}:changes` | stream | id `<version>-0`: at (bytes carried before), kind, edits (see `store.changes`) |
| `{catalog}:carried` | string | bytes of edits the stream has ever taken |
| `{catalog}:ends:blacklist` | sorted set | id -> when the entry ends, epoch milliseconds; of those that do |
| `{catalog}:seeded` | string | set when the configuration's documents were first stored |
| `find:{<provider>}:<n>` | hash | what reports name -> message id, of the `n`th half day; expires (`store.finds`) |
| `{uplinks}` | stream | the last uplinks as they came, field `u`, msgpack (`store.uplinks`) |
| `{uplinks}:seen:<identity>` | string | set when this uplink was dealt with; expires (`store.forwards`) |
| `{uplinks}:line:<line>` | list | uplinks that wait for the line's webhook, msgpack (`store.forwards`) |
| `{uplinks}:due` | sorted set | line -> when its webhook is to be told, or the lease on it ends, epoch milliseconds |
| `{uplinks}:failed` | hash | line -> how many times running its webhook has failed |
| `{senders}:rings` | hash | sender -> number of the journal it writes, 16 bytes (`actors.journal`) |
| `{starts}:<run>` | hash | actor -> times it started under this run |
"""


def log(p: int) -> str:
    return f"log:{{{p}}}"


def epoch(p: int) -> str:
    return f"epoch:{{{p}}}"


def snapshot(p: int) -> str:
    return f"snap:{{{p}}}"


def slices(p: int, generation: int) -> str:
    return f"snap:{{{p}}}:{generation}"


def readers(p: int) -> str:
    return f"readers:{{{p}}}"


def user(p: int, id_: str) -> str:
    return f"user:{{{p}}}:{id_}"


def letters(p: int) -> str:
    return f"dead:{{{p}}}"


def letter_index(p: int) -> str:
    return f"dead:{{{p}}}:places"


PARTITIONS = "{catalog}:partitions"
LAYOUT = "{catalog}:layout"
CATALOG_VERSION = "{catalog}:version"
CATALOG_CHANGES = "{catalog}:changes"
CATALOG_CARRIED = "{catalog}:carried"
BLACKLIST_ENDS = "{catalog}:ends:blacklist"
CATALOG_SEEDED = "{catalog}:seeded"
UPLINKS = "{uplinks}"
FORWARDS_DUE = "{uplinks}:due"
FORWARDS_FAILED = "{uplinks}:failed"
RINGS = "{senders}:rings"


def documents(kind: str) -> str:
    return f"{{catalog}}:doc:{kind}"


def history(kind: str, id_: str) -> str:
    return f"{{catalog}}:history:{kind}:{id_}"


def finds(provider: str, number: int) -> str:
    return f"find:{{{provider}}}:{number}"


def uplink_seen(identity: str) -> str:
    return f"{{uplinks}}:seen:{identity}"


def forwards(line: str) -> str:
    return f"{{uplinks}}:line:{line}"


def starts(run: str) -> str:
    return f"{{starts}}:{run}"
