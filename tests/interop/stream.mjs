// Streams triggers through node's own http client: a chunked body written while the answer is read.
// Arguments: url, how many, prefix of ids. Prints one JSON object: what came back, and whether it came while writing.
import http from "node:http";
import { once } from "node:events";
import { createInterface } from "node:readline";

const [url, count, prefix] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const statuses = {}, seqs = new Set(), messages = [];
let summary = null, written = 0, early = 0;

const request = http.request(`${url}/v1/triggers`, { method: "POST", headers: { "content-type": "application/x-ndjson" } });
const answered = once(request, "response");

async function write() {
  for (let n = 0; n < count; n++) {
    const phone = `+86139${String(n).padStart(8, "0")}`;
    const trigger = { id: `${prefix}-${n}`, to: { sms: phone }, template: "notice", line: "wallet", params: { n: `订单 ${prefix} ${n} 😀` } };
    const line = JSON.stringify(trigger) + (n % 2 ? "\r\n" : "\n");
    // Cut somewhere, even inside a character: a chunk is not a line.
    const bytes = Buffer.from(line), cut = (n * 7) % bytes.length;
    request.write(bytes.subarray(0, cut));
    written = n + 1;
    if (!request.write(bytes.subarray(cut))) await once(request, "drain");
    if (n === count / 2) while (early === 0) await new Promise((resolve) => setTimeout(resolve, 5)); // wait for an answer
  }
  request.end();
}

async function read() {
  const [response] = await answered;
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
  for await (const line of createInterface({ input: response })) {
    const told = JSON.parse(line);
    if (told.summary) { summary = told.summary; continue; }
    if (written < count) early++;
    statuses[told.status] = (statuses[told.status] ?? 0) + 1;
    seqs.add(told.seq);
    for (const m of told.messages) if (m.message) messages.push(m.message);
  }
  return response.headers["content-type"];
}

const [, contentType] = await Promise.all([write(), read()]);
console.log(JSON.stringify({ contentType, statuses, seqs: seqs.size, early, summary, messages }));
