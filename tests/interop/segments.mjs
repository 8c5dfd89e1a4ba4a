// Reads texts, one JSON string a line; writes what sms-segments-calculator makes of each, one JSON object a line.
import { createInterface } from "node:readline";
import calculator from "sms-segments-calculator";

const textOf = (segment) =>
    Array.from(segment) // its own `map` would make another segment, with a header
        .map((char) => char.raw ?? "") // a header has none
        .join("");

for await (const line of createInterface({ input: process.stdin })) {
    const message = new calculator.SegmentedMessage(JSON.parse(line));
    console.log(JSON.stringify({ gsm: message.encodingName === "GSM-7", parts: message.segments.map(textOf) }));
}
