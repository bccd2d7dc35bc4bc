// BullMQ on Redis, with the roles of role.py and the counters of tally.py. The schema is checked by ajv.
// Finished jobs are deleted; all other settings are defaults.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const Ajv = require("ajv/dist/2020").default;
const { Queue, Worker } = require("bullmq");

const spec = JSON.parse(process.env.ABE_ROUTER_BENCH);
const { values, schema, batch: BATCH } = JSON.parse(fs.readFileSync(path.join(spec.folder, "payloads.json")));
const isValid = new Ajv().compile(schema);
const socket = spec.url.replace("unix://", "").split("?")[0];
const connection = { path: socket, maxRetriesPerRequest: null };
const QUEUE = "bench";
// As in role.py, and in tally.py.
const CALLERS = Math.min(500, BATCH), CHECK_INTERVAL = 10;
const STAMPS = 200000, HEADER = 3, COUNT = 0, OPEN = 1, WAITING = 2, KEYS = 1000n;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function check(payload) {
  if (!isValid(payload)) throw new Error("the payload breaks its schema");
}

// Node.js cannot map a file, so each turn of the event loop writes its counts once.
class Tally {
  constructor() {
    this.file = fs.openSync(path.join(spec.folder, `tally-${process.pid}`), "w+");
    fs.ftruncateSync(this.file, 8 * (HEADER + 2 * STAMPS));
    this.counted = 0;
    this.stamps = [];
    this.isPlanned = false;
    this.isOpen = false;
  }

  // The gate shuts only while nothing is in flight, so it is read once a turn.
  count(sent) {
    if (!this.isPlanned) {
      this.isPlanned = true;
      if (!this.read(OPEN)) this.wait();
      setImmediate(() => this.write());
    }
    if (sent !== undefined) this.stamps.push([process.hrtime.bigint(), BigInt(sent)]);
    this.counted += 1;
  }

  wait() {
    this.put(WAITING, [1n]);
    const cell = new Int32Array(new SharedArrayBuffer(4));
    while (!this.read(OPEN)) Atomics.wait(cell, 0, 0, 0.5);
    this.put(WAITING, [0n]);
  }

  write() {
    this.isPlanned = false;
    const first = this.counted - this.stamps.length;
    this.stamps.forEach((stamp, at) => this.put(HEADER + 2 * ((first + at) % STAMPS), stamp));
    this.stamps = [];
    this.put(COUNT, [BigInt(this.counted)]);
  }

  put(cell, numbers) {
    fs.writeSync(this.file, BigInt64Array.from(numbers), 0, 8 * numbers.length, 8 * cell);
  }

  read(cell) {
    const number = new BigInt64Array(1);
    fs.readSync(this.file, number, 0, 8, 8 * cell);
    return number[0] !== 0n;
  }
}

function work() {
  const tally = new Tally();
  const handlers = {
    noop: async () => tally.count(),
    sleep: async () => { await sleep(1); tally.count(); },
    stamp: async (payload) => tally.count(payload.sent),
  };
  const handle = handlers[spec.handling];
  const worker = new Worker(QUEUE, async (job) => {
    check(job.data);
    await handle(job.data);
  }, { connection, concurrency: spec.concurrency });
  worker.on("error", (error) => console.error(error));
  worker.on("failed", (_, error) => console.error(error));
}

function* cycled(items, from = 0) {
  for (let at = from; ; at++) yield items[at % items.length];
}

function take(iterator, count) {
  return Array.from({ length: count }, () => iterator.next().value);
}

function add(queue, payload) {
  check(payload);
  return queue.add("handle", payload);
}

function addAll(queue, payloads) {
  payloads.forEach(check);
  return queue.addBulk(payloads.map((data) => ({ name: "handle", data })));
}

async function perSecond(run) {
  const began = performance.now();
  const sent = await run(began + 1000 * spec.seconds);
  return sent / ((performance.now() - began) / 1000);
}

async function byCallers(queue, count) {
  return perSecond(async (until) => {
    let sent = 0;
    const call = async (_, number) => {
      const mine = cycled(values, number);
      while (performance.now() < until) {
        for (const payload of take(mine, CHECK_INTERVAL)) await add(queue, payload);
        sent += CHECK_INTERVAL;
      }
    };
    await Promise.all(Array.from({ length: count }, call));
    return sent;
  });
}

async function publish(queue) {
  const batch = take(cycled(values), BATCH);
  const rates = { one: await byCallers(queue, 1), many: await byCallers(queue, CALLERS) };
  rates.batch = await perSecond(async (until) => {
    let sent = 0;
    for (; performance.now() < until; sent += batch.length) await addAll(queue, batch);
    return sent;
  });
  console.log(JSON.stringify(rates));
}

async function fill(queue) {
  const all = cycled(values);
  for (let left = spec.count; left > 0; left -= BATCH) await addAll(queue, take(all, Math.min(left, BATCH)));
}

async function pace(queue) {
  const all = cycled(values), began = performance.now();
  for (let number = 0; number < spec.rate * spec.seconds; number++) {
    const ahead = began + (1000 * number) / spec.rate - performance.now();
    if (ahead > 0) await sleep(ahead);
    const sent = Number((process.hrtime.bigint() / KEYS) * KEYS) + (number % spec.routes);
    await add(queue, { ...all.next().value, sent });
  }
}

async function main(role) {
  const queue = new Queue(QUEUE, { connection, defaultJobOptions: { removeOnComplete: true } });
  queue.on("error", (error) => console.error(error));
  await { publish, fill, pace }[role](queue);
  await queue.close();
}

if (process.argv[2] === "work") work();
else main(process.argv[2]);
