// A message centre on npm's smpp: answers in hexadecimal, writes its receipts in decimal, sends one text in two parts. To
// who binds with 0x50 it speaks SMPP 5.0: version and congestion in TLVs, and receipts that have no text, only TLVs.
const smpp = require("smpp");

let count = 0xa00;

const STATES = { "02": [5, [3, 0, 17]], "03": [9, [3, 0, 0]], "04": [0, [8, 0xff, 0xfe]] }; // by the number's end
const text = (message) => (Buffer.isBuffer(message) ? message.toString("latin1") : message ?? "");

const server = smpp.createServer((session) => {
  let five = false;
  session.on("error", () => {});
  session.on("bind_transceiver", (pdu) => {
    const good = pdu.system_id === "esme" && pdu.password === "hush";
    five = pdu.interface_version === 0x50;
    const version = five ? { sc_interface_version: 0x50 } : {};
    const command_status = good ? smpp.ESME_ROK : smpp.ESME_RINVPASWD;
    session.send(pdu.response({ command_status, system_id: "node", ...version }));
  });
  session.on("enquire_link", (pdu) => session.send(pdu.response()));
  session.on("unbind", (pdu) => { session.send(pdu.response()); session.close(); });
  session.on("submit_sm", (pdu) => {
    if (pdu.destination_addr.endsWith("00")) {
      session.send(pdu.response({ command_status: smpp.ESME_RINVDSTADR }));
      return;
    }
    const id = ++count;
    session.send(pdu.response({ message_id: id.toString(16), ...(five ? { congestion_state: 90 } : {}) }));
    const taken = { to: pdu.destination_addr, text: text(pdu.short_message.message), udh: pdu.short_message.udh?.[0].toString("hex") ?? "" };
    if (five) Object.assign(taken, { payload: text(pdu.message_payload?.message), reference: pdu.user_message_reference ?? null, receipt: pdu.registered_delivery });
    console.log(JSON.stringify(taken));
    setTimeout(() => (five ? report(session, pdu, id) : tell(session, pdu, id)), 300);
    if (taken.text === "reply") {
      for (const [place, piece] of [[2, "订"], [1, "退"]]) {
        session.deliver_sm({
          source_addr: pdu.destination_addr, source_addr_ton: 1, destination_addr: "10690000", esm_class: 0x40,
          data_coding: 8, short_message: { udh: Buffer.from([5, 0, 3, 7, 2, place]), message: piece },
        });
      }
    }
  });
});

function tell(session, pdu, id) {
  session.deliver_sm({
    source_addr: pdu.destination_addr, source_addr_ton: 1, destination_addr: "10690000", esm_class: 4,
    short_message: `id:${String(id).padStart(10, "0")} sub:001 dlvrd:001 submit date:2611240101 done date:2611240102 stat:DELIVRD err:000 text:`,
  });
}

function report(session, pdu, id) {
  const [message_state, error] = STATES[pdu.destination_addr.slice(-2)] ?? [2, [3, 0, 0]];
  session.deliver_sm({
    source_addr: pdu.destination_addr, source_addr_ton: 1, destination_addr: "10690000", esm_class: 4,
    receipted_message_id: id.toString(16), message_state, network_error_code: Buffer.from(error),
  });
}

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
