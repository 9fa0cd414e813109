// `npm run bench`: prefill and decode speed of heddle, and of node-llama-cpp beside it where that is available.
//
//   npm run bench -- [--shape tiny|1.1b] [--rounds 3] [--threads 2] [--quick] [--peer | --no-peer] [--json FILE] [--cache DIR]
//
// The two take turns, each in a process of its own: a machine that slows down slows both. A process measures twice, after
// a run that is not counted, and its better figure counts. The ratio is that of the medians over the rounds; its spread
// is that of the rounds' own ratios. --peer installs what the peer needs; without it the peer runs if it is there already.
import { appendFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main, root } from '../../scripts/common.mjs';
import { setUp } from '../../scripts/setup.mjs';
import { machineFacts, shareTakenByOthers } from './machine.mjs';
import { PeerMissing, preparePeer } from './peer.mjs';
import { modelFlags, SHAPES } from './shapes.mjs';
import { METRICS, time } from './sides.mjs';
import { median } from './statistics.mjs';

await main(async () => {
  const settings = readSettings();
  await setUp();
  const { table, formatRate } = await import('../../dist/cli/output.js');
  const machine = { ...machineFacts(), busyBefore: await shareTakenByOthers() };
  console.log(`${machine.cpu}, ${machine.cores} cores, ${machine.isa.join(' ')}, Node ${machine.node}\n`);
  if (machine.busyBefore > 0.1) {
    const percent = Math.round(machine.busyBefore * 100);
    console.log(`CAUTION: other programs take ${percent} % of the CPUs; these figures mean little\n`);
  }
  for (const shape of settings.shapes) {
    const sides = [['heddle', ourCommand(shape, settings)], ...(await peerSide(shape, settings))];
    const results = await takeTurns(sides, shape, settings);
    const { header, rows } = report(results, formatRate);
    console.log(`${describeShape(shape)}, ${describeRun(settings)}\n${table(header, rows)}`);
    record(settings, {
      shape,
      ...SHAPES[shape],
      dtype: 'bfloat16',
      ...settings.run,
      machine,
      results,
      ratios: ratios(results),
    });
  }
});

function readSettings() {
  const { values } = parseArgs({
    options: {
      shape: { type: 'string' },
      rounds: { type: 'string' },
      threads: { type: 'string', default: '2' },
      quick: { type: 'boolean', default: false },
      peer: { type: 'boolean' },
      'no-peer': { type: 'boolean', default: false },
      json: { type: 'string' },
      cache: { type: 'string', default: path.join(os.tmpdir(), 'heddle-bench') },
    },
  });
  const shapes = values.shape === undefined ? Object.keys(SHAPES) : [values.shape];
  if (!Object.hasOwn(SHAPES, shapes[0])) throw new Error(`--shape must be one of ${Object.keys(SHAPES).join(', ')}`);
  const size = values.quick ? { prompt: 128, generate: 16 } : { prompt: 512, generate: 48 };
  const rounds = count('rounds', values.rounds ?? (values.quick ? '1' : '3'));
  const { json, cache } = values;
  const run = { ...size, threads: count('threads', values.threads), rounds };
  return { shapes, run, json, cache, peer: !values['no-peer'], install: values.peer ?? false };
}

function count(name, text) {
  if (!/^[1-9]\d{0,2}$/.test(text))
    throw new Error(`--${name} must be a whole number from 1 to 999, received '${text}'`);
  return Number(text);
}

function ourCommand(shape, { cache, run: { prompt, generate, threads } }) {
  const sizes = ['--prompt-tokens', prompt, '--max-tokens', generate, '--threads', threads, '--tp', 1];
  const flags = [...modelFlags(shape, cache), '--dtype', 'bfloat16', ...sizes, '--json'];
  return [path.join(root, 'dist/cli/main.js'), 'bench', 'latency', ...flags.map(String)];
}

async function peerSide(shape, settings) {
  if (!settings.peer) return [];
  try {
    return [['node-llama-cpp', (await preparePeer(shape, settings))(settings.run)]];
  } catch (error) {
    if (!(error instanceof PeerMissing) || settings.install) throw error;
    console.log(`without a peer: ${error.message}\n`);
    return [];
  }
}

/** Figures of each side, one a round: `{ side: { metric: [...] } }`. */
async function takeTurns(sides, shape, settings) {
  const results = Object.fromEntries(
    sides.map(([side]) => [side, Object.fromEntries(METRICS.map((metric) => [metric, []]))]),
  );
  for (let round = 0; round < settings.run.rounds; round++) {
    for (const [side, command] of sides) {
      const figures = await time(command);
      for (const metric of METRICS) results[side][metric].push(figures[metric]);
      record(settings, { shape, side, round, ...figures });
    }
  }
  return results;
}

/** Ours over the peer's, by metric; empty without a peer. */
function ratios({ heddle, ...peers }) {
  const [peer] = Object.values(peers);
  if (!peer) return {};
  return Object.fromEntries(
    METRICS.map((metric) => {
      const paired = heddle[metric].map((value, round) => value / peer[metric][round]);
      const ofMedians = median(heddle[metric]) / median(peer[metric]);
      return [metric, { ofMedians, min: Math.min(...paired), max: Math.max(...paired) }];
    }),
  );
}

function report(results, formatRate) {
  const rows = Object.entries(results).map(([side, figures]) => [
    side,
    ...METRICS.map((m) => formatRate(median(figures[m]))),
  ]);
  const ratio = Object.values(ratios(results)).map(
    ({ ofMedians, min, max }) => `${ofMedians.toFixed(2)} (${min.toFixed(2)}..${max.toFixed(2)})`,
  );
  if (ratio.length > 0) rows.push(['ratio', ...ratio]);
  return { header: ['median', 'prefill tok/s', 'decode tok/s'], rows };
}

function describeShape(shape) {
  const { layers, hidden, ffn, heads, kv, hd, vocab } = SHAPES[shape];
  return `${shape}: Llama, ${layers} layers, hidden ${hidden}, ffn ${ffn}, ${heads} heads of ${hd}, ${kv} KV heads, vocab ${vocab}, bf16`;
}

function describeRun({ run: { prompt, generate, threads, rounds } }) {
  return `1 sequence, prompt ${prompt}, ${generate} generated, ${threads} threads, ${rounds} rounds`;
}

function record({ json }, line) {
  if (json) appendFileSync(json, `${JSON.stringify(line)}\n`);
}
