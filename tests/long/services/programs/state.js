// A Node program with state of every kind, which checks itself: counters per connection, data and their hashes, timers, a worker thread with
// shared memory, the thread pool, code that V8 has compiled, a child behind pipes. Protocol: client.py, state_turn(), verify_turn().
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const { spawn } = require('child_process');
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');

const BLOBS = 64, BLOB_BYTES = 262144, TICK_MS = 10;

if (!isMainThread) {
	const shared = new Int32Array(workerData);
	setInterval(() => Atomics.add(shared, 0, 1), TICK_MS);
	parentPort.on('message', (n) => parentPort.postMessage(sum(n)));
	return;
}

// Hot: compiled by the optimizing compiler, and again when its types change.
function sum(n) {
	let total = 0;
	for (let i = 0; i < n; i++)
		total = (total + i * i) % 1000003;
	return total;
}

const blobs = [], hashes = [];
const hash = (blob) => crypto.createHash('sha256').update(blob).digest('hex');
for (let i = 0; i < BLOBS; i++) {
	blobs.push(crypto.randomBytes(BLOB_BYTES));
	hashes.push(hash(blobs[i]));
}
const shared = new Int32Array(new SharedArrayBuffer(4));
const worker = new Worker(__filename, { workerData: shared.buffer });
const child = spawn('cat', [], { stdio: ['pipe', 'pipe', 'ignore'] });
const objects = new Map();
let generation = 0, ticks = 0, asked = 0;
setInterval(() => ticks++, TICK_MS);

function once(emitter, event) {
	return new Promise((resolve) => emitter.once(event, resolve));
}

function change() {
	generation++;
	const number = generation % BLOBS;
	blobs[number][generation % BLOB_BYTES] ^= 0xff;
	hashes[number] = hash(blobs[number]);
	objects.set(`generation ${generation}`, { generation, text: `blob ${number}`.repeat(3) });
	return `generation ${generation}`;
}

let verifying = Promise.resolve();

async function verifyOnce() {
	for (let i = 0; i < BLOBS; i++) {
		if (hash(blobs[i]) !== hashes[i])
			return `blob ${i} is not what it was`;
		await new Promise((resolve) => setImmediate(resolve)); // others come between
	}
	if (objects.size !== generation || (generation && objects.get(`generation ${generation}`).generation !== generation))
		return `${objects.size} objects, expected ${generation}`;
	const expected = sum(20000);
	worker.postMessage(20000);
	const found = await once(worker, 'message');
	if (found !== expected)
		return `the worker computed ${found}, expected ${expected}`;
	child.stdin.write(`${++asked}\n`);
	const echo = String(await once(child.stdout, 'data')).trim();
	if (echo !== String(asked))
		return `the child said ${echo}, expected ${asked}`;
	await fs.promises.readFile('/etc/passwd'); // the pool of threads
	const before = [ticks, Atomics.load(shared, 0)];
	// More than once: a freeze is time that passes, and afterwards the other thread may be the last to get its turn.
	for (let i = 0; i < 100; i++) {
		await new Promise((resolve) => setTimeout(resolve, 5 * TICK_MS));
		if (ticks !== before[0] && Atomics.load(shared, 0) !== before[1])
			return `ok ${ticks}`;
	}
	return 'a timer does not tick any more';
}

// One at a time: the worker's and the child's answers are whoever's asks first.
function verify() {
	const mine = verifying.then(verifyOnce).catch((error) => `failed: ${error.message}`);
	verifying = mine;
	return mine;
}

net.createServer((socket) => {
	let total = 0, rest = '';
	socket.setNoDelay(true);
	socket.on('error', () => {});
	socket.on('data', async (data) => {
		const lines = (rest + data).split('\n');
		rest = lines.pop();
		for (const line of lines) {
			const [word, value] = line.split(' ');
			if (word === 'add')
				socket.write(`total ${total += Number(value)}\n`);
			else if (word === 'change')
				socket.write(`${change()}\n`);
			else
				socket.write(`${await verify()}\n`);
		}
	});
}).listen(Number(process.argv[2]), '0.0.0.0');
