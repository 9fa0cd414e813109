// Prefill and decode with 8-bit and 2:4 weights, beside bfloat16 and beside llama.cpp's 8-bit weights.
import { PeerMissing, preparePeer } from '../peer.mjs';
import { betterRates, METRICS, time } from '../sides.mjs';
import { cacheBytesAToken, configFolder, SHAPES } from '../shapes.mjs';
import { describe, median, ratio } from '../statistics.mjs';
import { SHAPE } from './ours.mjs';

const MODES = {
  bf16: {},
  int8: { quantization: 'int8' },
  w8a8: { quantization: 'w8a8' },
  '2:4': { sparsity: '2:4' },
  '2:4 int8': { sparsity: '2:4', quantization: 'int8' },
  '2:4 w8a8': { sparsity: '2:4', quantization: 'w8a8' },
};
const PEER = 'llama.cpp q8_0';
const SIZE = { promptTokens: 512, maxTokens: 32, sequences: 1 };
const WARM_UP = { promptTokens: 64, maxTokens: 4, sequences: 1 };
const REPETITIONS = 2; // as many as the peer's

const PREFILL = 'prefill_tok_s';
const DECODE = 'decode_tok_s';
const AIMS = [
  { metric: DECODE, mode: 'int8', over: PEER, aim: 1.2 },
  { metric: DECODE, mode: 'int8', over: 'bf16', aim: 1.85 },
  { metric: PREFILL, mode: 'w8a8', over: 'bf16', aim: 1.6 },
  { metric: PREFILL, mode: 'w8a8', over: PEER, aim: 2.5 },
  { metric: DECODE, mode: '2:4 int8', over: 'int8', aim: 1.4 },
  { metric: DECODE, mode: '2:4', over: 'bf16', aim: 1.6 },
];
const NAMES = { [PREFILL]: 'prefill', [DECODE]: 'decode' };

const engines = {};

/** Closes what measuring opened. */
export async function closeEngines() {
  await Promise.all(Object.values(engines).map((engine) => engine.close()));
}

/** Opens the engines, and gives the peer's command, null without a peer. */
async function prepare({ cache, install }) {
  const { Engine } = await import('../../../dist/index.mjs');
  const model = configFolder(SHAPE, cache);
  const kvCacheBytes = 2 * (SIZE.promptTokens + SIZE.maxTokens) * cacheBytesAToken(SHAPE);
  for (const [mode, options] of Object.entries(MODES)) {
    engines[mode] = await Engine.create({
      ...{ model, loadFormat: 'dummy', dtype: 'bfloat16', ...options },
      ...{ threads: 2, kvCacheBytes, enablePrefixCaching: false, maxNumSeqs: 1 },
    });
    await measureMode(mode, WARM_UP, 1);
  }
  try {
    const peer = await preparePeer(SHAPE, { cache, install, type: 'q8_0' });
    return peer({ prompt: SIZE.promptTokens, generate: SIZE.maxTokens, threads: 2 });
  } catch (error) {
    if (!(error instanceof PeerMissing) || install) throw error;
    console.log(`without a peer: ${error.message}`);
    return null;
  }
}

async function measureMode(mode, size, repetitions) {
  const { measureLatency } = await import('../../../dist/bench/latency.js');
  const lines = [];
  for (let salt = 0; salt < repetitions; salt++) {
    lines.push(await measureLatency(engines[mode], size, { kvCacheBytesPerToken: cacheBytesAToken(SHAPE) }, salt));
  }
  return { ...betterRates(lines), weight_bytes: lines[0].weight_bytes };
}

/** A round: `{ side: { prefill_tok_s, decode_tok_s, weight_bytes } }`, the last of ours only. */
async function measure(_settings, peerCommand) {
  const sides = peerCommand === null ? {} : { [PEER]: await time(peerCommand) };
  for (const mode of Object.keys(MODES)) sides[mode] = await measureMode(mode, SIZE, REPETITIONS);
  return sides;
}

function modeLine(samples, side) {
  const rates = METRICS.map((metric) => describe(median(samples.map((sides) => sides[side][metric]))));
  const read = side === PEER ? '' : `${describe(median(samples.map((sides) => readGigabytes(sides[side]))))} GB/s`;
  return `| ${[side, ...rates, read].join(' | ')} |`;
}

/** What decoding must read, in 10^9 bytes a second: all weights but the embedding, and the cache half-way. */
function readGigabytes({ weight_bytes: weights, [DECODE]: rate }) {
  const { hidden, vocab } = SHAPES[SHAPE];
  const cache = (SIZE.promptTokens + SIZE.maxTokens / 2) * cacheBytesAToken(SHAPE);
  return ((weights - 2 * vocab * hidden + cache) * rate) / 1e9;
}

function aimLine(samples, { metric, mode, over, aim }) {
  const ours = samples.map((sides) => sides[mode][metric]);
  const others = samples.map((sides) => sides[over][metric]);
  const isMet = median(ours.map((rate, i) => rate / others[i])) >= aim;
  const text = ratio(ours, others);
  return `| ${NAMES[metric]}: ${mode} over ${over} | ${isMet ? text : `**${text}**`} | ≥ ${aim} |`;
}

const hasSide = (samples, side) => samples.every((sides) => side in sides);

export const modeSections = [
  {
    text:
      `Llama shape of 1.1 B parameters as [beside llama.cpp](#beside-llamacpp), random weights, 2 threads, 1 sequence, ` +
      `${SIZE.promptTokens} in, ${SIZE.maxTokens} out, tokens a second. The head is 8-bit where the others are, and never ` +
      `2:4, as in checkpoints. Read is what decoding must read: weights and KV cache.`,
    header: ['| | prefill | decode | read |', '|---|---|---|---|'],
    rows: [
      {
        id: 'modes',
        prepare,
        measure,
        lines: (samples) =>
          [PEER, ...Object.keys(MODES)].filter((side) => hasSide(samples, side)).map((side) => modeLine(samples, side)),
      },
    ],
  },
  {
    text: "Medians of the rounds' ratios with their spread; **bold** is what misses its aim.",
    header: ['| | ratio | aim |', '|---|---|---|'],
    rows: [
      {
        id: 'modes',
        lines: (samples) => AIMS.filter(({ over }) => hasSide(samples, over)).map((aim) => aimLine(samples, aim)),
      },
    ],
  },
];

export function describeMachine({ machine: { cpu, cores, isa, node, busyBefore }, samples }) {
  return (
    `${cpu}, ${cores} cores, ${isa.join(' ')}, Node ${node}. ${samples.length} rounds; other programs took ` +
    `${Math.round(busyBefore * 100)} % of the processors before.`
  );
}
