// A message centre on npm's smpp: answers in hexadecimal, writes its receipts in decimal, sends one text in two parts.
const smpp = require("smpp");

let count = 0xa00;
const submitted = [];

const server = smpp.createServer((session) => {
  session.on("error", () => {});
  session.on("bind_transceiver", (pdu) => {
    const good = pdu.system_id === "esme" && pdu.password === "hush";
    session.send(pdu.response({ command_status: good ? smpp.ESME_ROK : smpp.ESME_RINVPASWD, system_id: "node" }));
  });
  session.on("enquire_link", (pdu) => session.send(pdu.response()));
  session.on("unbind", (pdu) => { session.send(pdu.response()); session.close(); });
  session.on("submit_sm", (pdu) => {
    if (pdu.destination_addr.endsWith("00")) {
      session.send(pdu.response({ command_status: smpp.ESME_RINVDSTADR }));
      return;
    }
    const id = ++count;
    session.send(pdu.response({ message_id: id.toString(16) }));
    const text = pdu.short_message.message;
    console.log(JSON.stringify({ to: pdu.destination_addr, text, udh: pdu.short_message.udh?.[0].toString("hex") ?? "" }));
    setTimeout(() => {
      session.deliver_sm({
        source_addr: pdu.destination_addr, source_addr_ton: 1, destination_addr: "10690000", esm_class: 4,
        short_message: `id:${String(id).padStart(10, "0")} sub:001 dlvrd:001 submit date:2611240101 done date:2611240102 stat:DELIVRD err:000 text:`,
      });
    }, 300);
    if (text === "reply") {
      for (const [place, piece] of [[2, "订"], [1, "退"]]) {
        session.deliver_sm({
          source_addr: pdu.destination_addr, source_addr_ton: 1, destination_addr: "10690000", esm_class: 0x40,
          data_coding: 8, short_message: { udh: Buffer.from([5, 0, 3, 7, 2, place]), message: piece },
        });
      }
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
