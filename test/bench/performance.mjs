// `npm run bench:performance`: every figure of docs/performance.md, written there.
//
//   npm run bench:performance -- [--rounds 5] [--only ROW,...] [--peer] [--cache DIR] [--json FILE] [--out FILE]
//
// A row is one run of `heddle bench latency`, perhaps beside one of node-llama-cpp on the same shape. In each round the machine's
// ceilings, ours and the peer's take turns. Figures are medians over the rounds; a ratio is that of the medians, its
// spread that of the rounds' own ratios.
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main, root, run } from '../../scripts/common.mjs';
import { setUp } from '../../scripts/setup.mjs';
import { machineFacts, shareTakenByOthers } from './machine.mjs';
import { preparePeer } from './peer.mjs';
import { modelFlags, SHAPES } from './shapes.mjs';
import { jsonLines, METRICS, time } from './sides.mjs';
import { describe, median, spread } from './statistics.mjs';

const SHAPE = '1.1b';
const MARK = { begin: '<!-- figures: written by npm run bench:performance -->', end: '<!-- end of figures -->' };

/**
 * What is run. `peer: false` where llama.cpp has nothing to compare. `isa` forces a path of ours; the peer chooses its
 * own.
 */
const ROWS = [
  { id: 'one', title: '1 sequence', prompt: 512, generate: 48 },
  { id: 'one-tp2', title: '1 sequence, 2 ranks × 1 thread', prompt: 512, generate: 48, tp: 2 },
  { id: 'one-avx512', title: '1 sequence, AVX-512 kernels', prompt: 512, generate: 24, isa: 'avx512' },
  { id: 'one-avx2', title: '1 sequence, AVX2 kernels', prompt: 512, generate: 24, isa: 'avx2' },
  { id: 'eight', title: '8 sequences', prompt: 128, generate: 32, sequences: 8 },
  { id: 'thirty-two', title: '32 sequences', prompt: 64, generate: 32, sequences: 32 },
  { id: 'long', title: '1 sequence after 8,000 tokens', prompt: 8000, generate: 24, peer: false },
];

await main(async () => {
  const settings = readSettings();
  await setUp();
  const machine = { ...machineFacts(), busyBefore: await shareTakenByOthers() };
  if (machine.busyBefore > 0.1) console.log('CAUTION: other programs are running; these figures mean little');
  const peer = await preparePeer(SHAPE, settings);
  const results = [];
  for (const row of settings.rows) {
    const result = await measure(row, peer, settings);
    results.push(result);
    console.log(tableRow(result));
    if (settings.json) appendFileSync(settings.json, `${JSON.stringify({ machine, ...result })}\n`);
  }
  writeDocument(settings.out, machine, settings, results);
});

function readSettings() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      only: { type: 'string' },
      peer: { type: 'boolean', default: false },
      cache: { type: 'string', default: path.join(os.tmpdir(), 'heddle-bench') },
      json: { type: 'string' },
      out: { type: 'string', default: path.join(root, 'docs/performance.md') },
    },
  });
  if (!/^[1-9]\d?$/.test(values.rounds)) throw new Error(`--rounds must be from 1 to 99, received '${values.rounds}'`);
  const only = values.only?.split(',');
  const unknown = only?.find((id) => !ROWS.some((row) => row.id === id));
  if (unknown !== undefined) throw new Error(`--only must name rows of ${ROWS.map(({ id }) => id).join(', ')}`);
  const rows = ROWS.filter(({ id }) => only === undefined || only.includes(id));
  return { ...values, install: values.peer, rounds: Number(values.rounds), rows };
}

async function measure(row, peer, settings) {
  const samples = [];
  for (let round = 0; round < settings.rounds; round++) {
    const bandwidth = await readBandwidth();
    const ours = await time(ourCommand(row, settings), row.isa === undefined ? {} : { HEDDLE_CPU_ISA: row.isa });
    const theirs = row.peer === false ? null : await time(peer({ ...row, threads: 2 }));
    samples.push({ bandwidth, ours, theirs });
  }
  const { id, title, prompt, generate, sequences = 1 } = row;
  return { id, title, prompt, generate, sequences, samples };
}

function ourCommand({ prompt, generate, sequences = 1, tp = 1 }, { cache }) {
  const sizes = ['--prompt-tokens', prompt, '--max-tokens', generate, '--sequences', sequences];
  const where = ['--tp', tp, '--threads', 2 / tp, '--dtype', 'bfloat16', '--json'];
  const flags = [...modelFlags(SHAPE, cache), ...sizes, ...where].map(String);
  return [path.join(root, 'dist/cli/main.js'), 'bench', 'latency', ...flags];
}

/** GB/s that two threads read from memory now. */
async function readBandwidth() {
  const program = path.join(root, 'test/bench/native.mjs');
  const { output } = await run(process.execPath, [program, 'ceilings', '5'], { capture: true });
  return jsonLines(output).find(({ name, threads }) => name === 'read_memory' && threads === 2).median;
}

/** Bytes that one decoding step reads: every weight but the embedding, and all keys and values. */
function bytesAStep({ prompt, generate, sequences }) {
  const { layers, hidden, ffn, heads, kv, hd, vocab } = SHAPES[SHAPE];
  const layer = hidden * (heads + 2 * kv) * hd + heads * hd * hidden + 3 * hidden * ffn;
  const cache = sequences * layers * 2 * kv * hd * (prompt + generate / 2);
  return 2 * (layers * layer + vocab * hidden + cache);
}

function tableRow({ title, prompt, generate, sequences, samples }) {
  const ours = (key) => samples.map((sample) => sample.ours[key]);
  const theirs = (key) => samples.map((sample) => sample.theirs?.[key]);
  const bytes = bytesAStep({ prompt, generate, sequences });
  const shares = samples.map((sample) => ((sample.ours.decode_tok_s / sequences) * bytes) / (sample.bandwidth * 1e9));
  const cells = [`${title}, ${prompt} in, ${generate} out`];
  for (const key of METRICS) {
    cells.push(describe(median(ours(key))));
    if (samples[0].theirs === null) cells.push('', '');
    else cells.push(describe(median(theirs(key))), ratio(ours(key), theirs(key)));
  }
  cells.push(
    `${Math.round(median(shares) * 100)} % ${spread(
      shares.map((share) => share * 100),
      0,
    )}`,
  );
  return `| ${cells.join(' | ')} |`;
}

function ratio(ours, theirs) {
  const rounds = ours.map((value, i) => value / theirs[i]);
  return `${describe(median(ours) / median(theirs))} ${spread(rounds, 2)}`;
}

function writeDocument(file, machine, { rounds }, results) {
  const text = readFileSync(file, 'utf8');
  const [before, rest] = text.split(MARK.begin);
  const after = rest?.split(MARK.end)[1];
  if (after === undefined) throw new Error(`${file} lacks the lines ${MARK.begin} and ${MARK.end}`);
  const { layers, hidden, ffn, heads, kv, hd, vocab } = SHAPES[SHAPE];
  const figures = [
    `${machine.cpu}, ${machine.cores} cores, ${machine.isa.join(' ')}, Node ${machine.node}; other programs took ` +
      `${Math.round(machine.busyBefore * 100)} % of the processors before. Llama shape of ${layers} layers, hidden ` +
      `${hidden}, ffn ${ffn}, ${heads} heads of ${hd}, ${kv} KV heads, vocabulary ${vocab} (1.1 B), random weights in ` +
      `bfloat16, 2 threads, ${rounds} rounds. Tokens a second; medians, ratios with their spread over the rounds.`,
    '',
    '| | prefill | llama.cpp | ratio | decode | llama.cpp | ratio | decode: share of read bandwidth |',
    '|---|---|---|---|---|---|---|---|',
    ...results.map(tableRow),
  ];
  writeFileSync(file, [before.trimEnd(), '', MARK.begin, '', ...figures, '', `${MARK.end}${after}`].join('\n'));
}
