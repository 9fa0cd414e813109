// `npm run bench:gpu`: the Llama-3.1-8B shape in bfloat16 on one GPU, through the public API. One line of JSON a case:
// medians over the rounds, with their spread.
//
//   npm run bench:gpu -- [--case NAME,...] [--rounds 3] [--json FILE] [--native PROGRAM] [--read PROGRAM]
//                        [--copy PROGRAM] [--folder DIR] [--device cuda] [--shape 8b]
//
// decode    tokens a second from the moment when every sequence has its first token; and of a step the microseconds
//           altogether, those of the host's own work, and those of the device between two steps
// prefill   tokens of the prompt a second until then
// load      GB a second of the weights of a checkpoint in the page cache, and seconds until Engine.create resolves and
//           until there is a first token; the checkpoint is written to DIR/, where it stays
//
// `--native` runs each of the requests also without JavaScript (`node test/bench/native.mjs engine` builds
// build/bench/engine). `--read` says what reading the device's memory can reach before and after one sequence decodes
// (build/cuda/bench/read_bench), and `--copy` what copying to the device can (build/cuda/bench/copy_bench). Needs nothing
// but dist/ and build/; any device and small shapes will do to try it out.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main, run } from '../../scripts/common.mjs';
import { measureLoad } from './gpu/load.mjs';
import { measureRequests, WARM_UPS } from './gpu/requests.mjs';
import { gpuFacts, machineFacts } from './machine.mjs';
import { cacheBytesAToken, configFolder, SHAPES, weightBytesAStep } from './shapes.mjs';
import { jsonLines } from './sides.mjs';
import { median, round, summary } from './statistics.mjs';

const CASES = [
  { name: 'decode', batch: 1, prompt: 128, output: 128 },
  { name: 'decode', batch: 8, prompt: 128, output: 64 },
  { name: 'decode', batch: 32, prompt: 128, output: 64 },
  { name: 'decode', batch: 128, prompt: 128, output: 64 },
  { name: 'decode', batch: 256, prompt: 128, output: 64 },
  { name: 'prefill', batch: 1, prompt: 4096, output: 1 },
];
const NAMES = [...new Set(CASES.map(({ name }) => name)), 'load'];
const MAX_NUM_SEQS = 256;
/** Twice what the largest batch needs, and little enough for the native program to have as much beside it. */
const KV_CACHE_TOKENS = 2 ** 16;

await main(async () => {
  const settings = readSettings();
  const lines = [];
  const print = (line) => {
    lines.push(line);
    console.log(JSON.stringify(line));
    if (settings.json) writeFileSync(settings.json, `${JSON.stringify(lines, null, 2)}\n`);
  };
  print({ name: 'machine', ...machineFacts(), ...(await gpuFacts()) });
  const { Engine } = await import('../../dist/index.mjs');
  if (settings.cases.length > 0) await serve(Engine, settings, print);
  if (settings.load) await measureLoad(Engine, settings, print);
});

function readSettings() {
  const { values } = parseArgs({
    options: {
      case: { type: 'string', default: NAMES.join() },
      rounds: { type: 'string', default: '3' },
      json: { type: 'string' },
      native: { type: 'string' },
      read: { type: 'string' },
      copy: { type: 'string' },
      folder: { type: 'string', default: path.join(os.tmpdir(), 'heddle-bench') },
      device: { type: 'string', default: 'cuda' },
      shape: { type: 'string', default: '8b' },
    },
  });
  const { case: list, ...settings } = values;
  const names = list.split(',');
  const unknown = names.find((name) => !NAMES.includes(name));
  if (unknown !== undefined) throw new Error(`--case takes some of ${NAMES.join(', ')}, received ${unknown}`);
  if (!Object.hasOwn(SHAPES, settings.shape)) throw new Error(`--shape takes one of ${Object.keys(SHAPES).join(', ')}`);
  const rounds = Number(settings.rounds);
  if (!(Number.isInteger(rounds) && rounds > 0)) throw new Error('--rounds takes a whole number of at least 1');
  const cases = CASES.filter(({ name }) => names.includes(name));
  return { ...settings, rounds, cases, load: names.includes('load') };
}

/** The cases of requests, one after another on one engine with random weights. */
async function serve(Engine, settings, print) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'heddle-bench-'));
  try {
    const model = configFolder(settings.shape, folder);
    const kvCacheBytes = KV_CACHE_TOKENS * cacheBytesAToken(settings.shape);
    const start = performance.now();
    const engine = await Engine.create({
      ...{ model, device: settings.device, loadFormat: 'dummy', kvCacheBytes },
      ...{ maxNumSeqs: MAX_NUM_SEQS, enablePrefixCaching: false },
    });
    print({ name: 'create', seconds: round((performance.now() - start) / 1000) });
    for (const work of settings.cases) {
      const { vocab } = SHAPES[settings.shape];
      const reads = isBoundByReading(work) && settings.read;
      const readings = reads ? await programLines(reads) : [];
      for (let i = 0; i < WARM_UPS; i++) await measureRequests(engine, work, vocab);
      const samples = [];
      for (let i = 0; i < settings.rounds; i++) samples.push(await measureRequests(engine, work, vocab));
      if (reads) readings.push(...(await programLines(reads)));
      readings.forEach(print);
      const native = settings.native && (await measureNatively(settings, model, kvCacheBytes, work));
      print(caseLine(work, samples, { readings, native, shape: settings.shape }));
    }
    await engine.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Whether the weights are all that a step has to read. */
function isBoundByReading({ name, batch }) {
  return name === 'decode' && batch === 1;
}

/** Samples as those of `measureRequests`. */
function measureNatively({ native, device, rounds }, model, kvCacheBytes, { batch, prompt, output }) {
  return programLines(native, [model, device, kvCacheBytes, MAX_NUM_SEQS, batch, prompt, output, rounds]);
}

async function programLines(program, args = []) {
  return jsonLines((await run(path.resolve(program), args.map(String), { capture: true })).output);
}

function caseLine(work, samples, { readings, native, shape }) {
  const { name } = work;
  const rates = samples.map((sample) => sample[name]);
  const outputs = samples.map(({ output }) => output);
  const line = { ...work, tokensPerSecond: summary(rates), outputTokensPerSecond: summary(outputs) };
  if (isBoundByReading(work)) {
    line.weightBytesPerSecond = round(median(rates) * weightBytesAStep(shape));
    const best = Math.max(...readings.map(({ rate }) => rate));
    if (readings.length > 0) line.ofReading = round(line.weightBytesPerSecond / (best * 1e9));
  }
  const steps = samples.map(({ step }) => step).filter((step) => step?.wait > 0);
  if (name === 'decode' && steps.length > 0) {
    const of = (microseconds) => summary(steps.map(microseconds));
    line.stepMicroseconds = {
      total: of(({ total }) => total),
      host: of(({ total, wait }) => total - wait),
      idle: of(({ idle }) => idle),
    };
  }
  if (native) {
    line.native = summary(native.map((sample) => sample[name]));
    line.ofNative = round(median(rates) / line.native.median);
    line.outputOfNative = round(median(outputs) / median(native.map(({ output }) => output)));
  }
  return line;
}
