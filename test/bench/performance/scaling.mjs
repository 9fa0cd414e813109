// Decoding of many sequences, and after a long prompt, beside one sequence of ours.
import { describe, median, percent, ratio } from '../statistics.mjs';
import { ceilings, latency, SHAPE, shareOfBandwidth } from './ours.mjs';

const SIZES = [
  {
    id: 'eight-over-one',
    title: '8 sequences, 128 in',
    size: { prompt: 128, generate: 32, sequences: 8 },
    base: { prompt: 128, generate: 32 },
  },
  {
    id: 'thirty-two-over-one',
    title: '32 sequences, 64 in',
    size: { prompt: 64, generate: 32, sequences: 32 },
    base: { prompt: 64, generate: 32 },
  },
  {
    id: 'long',
    title: '1 sequence, 8000 in',
    size: { prompt: 8000, generate: 32 },
    base: { prompt: 512, generate: 32 },
  },
];

export const scalingSection = {
  title: 'Batches and long contexts',
  text:
    'The same shape, decoding, beside one sequence of ours in the same rounds (after a prompt of the same length; in the ' +
    'last row, of 512 tokens). Where all is bound by memory, the parts of the bandwidth are the same and the ratio says ' +
    'what the keys and values cost. Aims: 8 sequences 7 times one; after 8000 tokens the same part of the bandwidth.',
  header: [
    '| | decode, tok/s | one sequence | ratio | of read bandwidth | one sequence |',
    '|---|---|---|---|---|---|',
  ],
  rows: SIZES.map(({ id, title, size, base }) => ({
    id,
    measure: async ({ cache }) => ({
      bandwidth: (await ceilings()).read_memory,
      many: await latency(SHAPE, cache, size),
      one: await latency(SHAPE, cache, base),
    }),
    lines(samples) {
      const many = samples.map((sample) => sample.many.decode_tok_s);
      const one = samples.map((sample) => sample.one.decode_tok_s);
      const shares = (rates, of) =>
        percent(samples.map(({ bandwidth }, i) => shareOfBandwidth(of, rates[i], bandwidth)));
      const cells = [describe(median(many)), describe(median(one)), ratio(many, one)];
      return [`| ${[title, ...cells, shares(many, size), shares(one, base)].join(' | ')} |`];
    },
  })),
};
