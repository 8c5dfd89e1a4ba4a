// A webhook provider of node's making: takes batches, checks their signature as Standard Webhooks says, answers.
// The secret (whsec_...) is in WEBHOOK_SECRET. Prints its port, then answers GET /seen with what it was sent.
import http from "node:http";
import { createHmac, timingSafeEqual } from "node:crypto";

const key = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const seen = { messages: [], requests: 0, bad: [] };

function fault(headers, body) {
  const id = headers["webhook-id"], at = headers["webhook-timestamp"], signatures = headers["webhook-signature"];
  if (!id || !at || !signatures) return "headers are missing";
  if (Math.abs(Date.now() / 1000 - Number(at)) > 300) return `timestamp ${at} is not now`;
  const mine = createHmac("sha256", key).update(`${id}.${at}.`).update(body).digest();
  const good = signatures.split(" ").some((word) => {
    const [version, signature] = word.split(",");
    const theirs = Buffer.from(signature ?? "", "base64");
    return version === "v1" && theirs.length === mine.length && timingSafeEqual(theirs, mine);
  });
  return good ? null : "the signature is wrong";
}

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  if (request.url === "/seen") return response.end(JSON.stringify(seen));
  const body = Buffer.concat(chunks), wrong = fault(request.headers, body);
  seen.requests++;
  if (wrong) {
    seen.bad.push(wrong);
    response.statusCode = 401;
    return response.end();
  }
  const { messages } = JSON.parse(body.toString());
  const results = messages.map((m) => {
    seen.messages.push(m);
    const answer = m.text.includes("refuse") ? "rejected" : "accepted";
    return { id: m.id, answer, ref: `node-${m.id}`, code: answer === "rejected" ? "no" : null };
  });
  results.reverse(); // they are matched by id
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ results }));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
