// The matrix products of a layer beside what the machine can do at most.
import { percent, describe, median } from '../statistics.mjs';
import { native } from './ours.mjs';

export const productSection = {
  title: 'Matrix products',
  text:
    'Products of the same shape with two threads (`npm run bench:matmul`): up to 32 rows beside the read bandwidth, ' +
    'more beside tile products that find everything in the caches (`amx_bf16_tiled` of `npm run bench:ceilings`). Each ' +
    'reads its weights from memory. Aims: 93 % with one row, 90 % with 256.',
  header: ['| | rows | rate | of the ceiling |', '|---|---|---|---|'],
  rows: [
    {
      id: 'products',
      measure: () => native('matmul', ['2', '10']),
      lines: (samples) =>
        samples[0].map(({ name, rows, unit }, i) => {
          const rate = describe(median(samples.map((sample) => sample[i].rate)));
          return `| ${name} | ${rows} | ${rate} ${unit} | ${percent(samples.map((sample) => sample[i].share))} |`;
        }),
    },
  ],
};
