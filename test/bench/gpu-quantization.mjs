// `npm run bench:gpu-quantization`: 8-bit and 2:4 weights beside bfloat16 ones on a GPU: the Llama-3.1-8B shape with random
// weights, through the public API. One line of JSON an engine and amount of work, then the table of docs/performance.md.
//
//   npm run bench:gpu-quantization -- [--rounds 2] [--batches 1,2,...] [--modes int8,...] [--device cuda] [--shape 8b]
//                                     [--write]
//
// All modes take turns, bfloat16 first, in each round; a ratio is the median over the rounds of the ratio to that round's
// bfloat16. `--write` puts the table into docs/performance.md.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main, root } from '../../scripts/common.mjs';
import { measureRequests, WARM_UPS } from './gpu/requests.mjs';
import { gpuFacts } from './machine.mjs';
import { cacheBytesAToken, configFolder, SHAPES } from './shapes.mjs';
import { describe, median } from './statistics.mjs';

const MODES = {
  bf16: {},
  int8: { quantization: 'int8' },
  w8a8: { quantization: 'w8a8' },
  'llm-int8': { quantization: 'llm-int8' },
  '2:4': { sparsity: '2:4' },
  '2:4 int8': { sparsity: '2:4', quantization: 'int8' },
  '2:4 w8a8': { sparsity: '2:4', quantization: 'w8a8' },
};
const BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const PREFILL = { name: 'prefill', batch: 1, prompt: 4096, output: 1 };
const REPETITIONS = 3;
const DOCUMENT = path.join(root, 'docs/performance.md');
const MARK = '<!-- figures: written by npm run bench:gpu-quantization -->';
const END = '<!-- end of figures -->';

await main(async () => {
  const settings = readSettings();
  const { Engine } = await import('../../dist/index.mjs');
  const facts = await gpuFacts();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'heddle-bench-'));
  const rates = []; // of each round: { mode: { work: tokens a second } }
  try {
    const model = configFolder(settings.shape, folder);
    for (let round = 0; round < settings.rounds; round++) {
      rates.push({});
      for (const mode of ['bf16', ...settings.modes]) {
        rates[round][mode] = await measureMode(Engine, { model, mode, ...settings });
        console.log(JSON.stringify({ round, mode, ...rates[round][mode] }));
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  const table = tableOf(settings, facts, rates);
  console.log(table);
  if (settings.write) writeDocument(table);
});

function readSettings() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '2' },
      batches: { type: 'string', default: BATCHES.join() },
      modes: { type: 'string', default: Object.keys(MODES).slice(1).join() },
      device: { type: 'string', default: 'cuda' },
      shape: { type: 'string', default: '8b' },
      write: { type: 'boolean', default: false },
    },
  });
  const modes = values.modes.split(',').filter((mode) => mode !== 'bf16');
  const unknown = modes.find((mode) => !Object.hasOwn(MODES, mode));
  if (unknown !== undefined)
    throw new Error(`--modes takes some of ${Object.keys(MODES).join(', ')}, received ${unknown}`);
  return { ...values, modes, rounds: Number(values.rounds), batches: values.batches.split(',').map(Number) };
}

/** Tokens a second of each amount of work, on an engine of its own. */
async function measureMode(Engine, { model, mode, device, shape, batches }) {
  const most = Math.max(...batches);
  const decoding = batches.map((batch) => ({ name: 'decode', batch, prompt: 128, output: batch === 1 ? 128 : 48 }));
  const engine = await Engine.create({
    ...{ model, device, loadFormat: 'dummy', dtype: 'bfloat16', ...MODES[mode] },
    ...{
      kvCacheBytes: Math.max(most * 256, 8192) * cacheBytesAToken(shape),
      maxNumSeqs: most,
      enablePrefixCaching: false,
    },
  });
  try {
    const rates = {};
    for (const work of [PREFILL, ...decoding]) {
      for (let i = 0; i < WARM_UPS; i++) await measureRequests(engine, work, SHAPES[shape].vocab);
      const samples = [];
      for (let i = 0; i < REPETITIONS; i++)
        samples.push((await measureRequests(engine, work, SHAPES[shape].vocab))[work.name]);
      rates[keyOf(work)] = Math.round(median(samples) * 10) / 10;
    }
    return rates;
  } finally {
    await engine.close();
  }
}

function keyOf({ name, batch }) {
  return name === 'prefill' ? name : String(batch);
}

function tableOf({ modes, batches }, { gpu }, rates) {
  const columns = [...batches.map(String), 'prefill'];
  const cell = (mode, column) => {
    const rate = describe(median(rates.map((round) => round[mode][column])));
    if (mode === 'bf16') return rate;
    const ratio = median(rates.map((round) => round[mode][column] / round.bf16[column]));
    return `${rate} (${ratio < 1 ? '**' : ''}${ratio.toFixed(2)}${ratio < 1 ? '**' : ''})`;
  };
  return [
    `${gpu}. Tokens a second by sequences that decode, after prompts of 128 tokens, and of a prompt of 4,096 tokens; in ` +
      'brackets the ratio to bfloat16 of the same round, bold where it is below 1.',
    '',
    `| | ${columns.join(' | ')} |`,
    `|---|${columns.map(() => '---|').join('')}`,
    ...['bf16', ...modes].map((mode) => `| ${mode} | ${columns.map((column) => cell(mode, column)).join(' | ')} |`),
  ].join('\n');
}

function writeDocument(table) {
  const text = readFileSync(DOCUMENT, 'utf8');
  const begin = text.indexOf(MARK);
  const end = text.indexOf(END, begin);
  if (begin < 0 || end < 0) throw new Error(`${DOCUMENT} lacks the lines ${MARK} and ${END}`);
  writeFileSync(DOCUMENT, `${text.slice(0, begin)}${MARK}\n\n${table}\n\n${text.slice(end)}`);
}
