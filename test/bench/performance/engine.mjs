// What the engine itself costs: per step, and at its start.
import { bench, ceilings, latency, SHAPE } from './ours.mjs';
import { describe, median, percent, spread } from '../statistics.mjs';
import { checkpointFlags } from '../shapes.mjs';

// Short enough for the first repetitions to run before JavaScript is compiled.
const BUNDLED = { prompt: 256, generate: 64, repetitions: 20 };
const microseconds = (samples, key) => {
  const values = samples.map((sample) => sample[key]);
  return `${describe(median(values))} µs ${spread(values, 0)}`;
};
const seconds = (values) => `${median(values).toFixed(2)} s ${spread(values, 2)}`;

// `figure` gives the cell of a row from its samples.
const ROWS = [
  {
    id: 'overhead-1',
    title: 'Engine overhead a step, bundled model, 1 sequence',
    aim: '≤ 30 µs',
    measure: ({ cache }) => latency('tiny', cache, BUNDLED),
    figure: (samples) => microseconds(samples, 'overhead_us'),
  },
  {
    id: 'overhead-64',
    title: 'Engine overhead a step, bundled model, 64 sequences',
    aim: '≤ 100 µs',
    measure: ({ cache }) => latency('tiny', cache, { ...BUNDLED, sequences: 64 }),
    figure: (samples) => microseconds(samples, 'overhead_us'),
  },
  {
    id: 'bundled-read',
    title: 'Bundled model, 1 sequence: of the rate at which 16 MiB are read again and again',
    aim: '≥ 80 %',
    measure: async ({ cache }) => ({
      bandwidth: (await ceilings()).read_16MiB,
      ours: await latency('tiny', cache, BUNDLED),
    }),
    figure: (samples) => percent(samples.map(({ ours, bandwidth }) => ours.read_gb_s / bandwidth)),
  },
  {
    id: 'startup',
    title: '1.1 B without a tokenizer, `Engine.create` to the first token, packed weights cached and in memory',
    aim: '≤ 0.5 s',
    measure: ({ cache }) => bench('startup', [...checkpointFlags(SHAPE, cache), '--json']),
    figure: (samples) => seconds(samples.map((lines) => median(lines.slice(1).map((line) => line.first_token_s)))),
  },
];

export const engineSection = {
  title: 'The engine itself',
  text:
    'Overhead is the time of a decoding step less that in ops (`heddle bench latency`). The first token is that of a prompt ' +
    'of 16 tokens, of the second to fifth engine of a process (`heddle bench startup`).',
  header: ['| | | aim |', '|---|---|---|'],
  rows: ROWS.map(({ id, title, aim, measure, figure }) => ({
    id,
    measure,
    lines: (samples) => [`| ${title} | ${figure(samples)} | ${aim} |`],
  })),
};
