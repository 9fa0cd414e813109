// Prefill and decode beside node-llama-cpp.
import { preparePeer } from '../peer.mjs';
import { METRICS, time } from '../sides.mjs';
import { describe, median, percent, ratio } from '../statistics.mjs';
import { ceilings, latency, SHAPE, shareOfBandwidth } from './ours.mjs';

// The peer chooses its own kernels, but with `avx2`, which takes AVX-512 from it.
const SIZES = [
  { id: 'one', title: '1 sequence', prompt: 512, generate: 48 },
  { id: 'one-tp2', title: '1 sequence, 2 ranks × 1 thread', prompt: 512, generate: 48, tp: 2 },
  { id: 'one-avx512', title: '1 sequence, our AVX-512 kernels', prompt: 512, generate: 24, isa: 'avx512' },
  { id: 'one-avx2', title: '1 sequence, AVX2 on both sides', prompt: 512, generate: 24, isa: 'avx2', avx2: true },
  { id: 'eight', title: '8 sequences', prompt: 128, generate: 32, sequences: 8 },
  { id: 'thirty-two', title: '32 sequences', prompt: 64, generate: 32, sequences: 32 },
];

async function bandwidths() {
  const { read_memory: bandwidth, read_memory_in_step: inStep } = await ceilings();
  return { bandwidth, inStep };
}

export const peerSection = {
  title: 'Beside llama.cpp',
  text:
    'Llama shape of 16 layers, hidden 2048, ffn 8192, 32 heads of 64, 8 KV heads, vocabulary 32768 (1.1 B), random ' +
    'weights in bfloat16 on both sides, 2 threads. Tokens a second of all sequences together. The last column is the ' +
    'part of the read bandwidth, measured in the same round, that decoding used for what it must read; of two ranks ' +
    'also the part of what two threads read that wait for each other every 32 MiB. Aims: prefill 4 times llama.cpp with ' +
    'AMX, 1.3 with AVX-512, 1.1 with AVX2; decode 1.2 times and 93 % of the bandwidth with one sequence, 2 times with 8 ' +
    'and with 32.',
  header: [
    '| | prefill | llama.cpp | ratio | decode | llama.cpp | ratio | of read bandwidth |',
    '|---|---|---|---|---|---|---|---|',
  ],
  rows: SIZES.map((size) => ({
    id: size.id,
    prepare: ({ cache, install }) => preparePeer(SHAPE, { cache, install, avx2: size.avx2 }),
    measure: async ({ cache }, peer) => ({
      ...(await bandwidths()),
      ours: await latency(SHAPE, cache, size),
      theirs: await time(peer({ ...size, threads: 2 })),
    }),
    lines(samples) {
      const cells = [`${size.title}, ${size.prompt} in, ${size.generate} out`];
      for (const metric of METRICS) {
        const ours = samples.map((sample) => sample.ours[metric]);
        const theirs = samples.map((sample) => sample.theirs[metric]);
        cells.push(describe(median(ours)), describe(median(theirs)), ratio(ours, theirs));
      }
      const share = (of) =>
        percent(samples.map((sample) => shareOfBandwidth(size, sample.ours.decode_tok_s, sample[of])));
      cells.push(
        samples.every(({ inStep }) => inStep > 0) && size.tp > 1
          ? `${share('bandwidth')}, in step ${share('inStep')}`
          : share('bandwidth'),
      );
      return [`| ${cells.join(' | ')} |`];
    },
  })),
};
