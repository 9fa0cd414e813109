// The GPU's kernels, each beside what the device can do at most: all that the programs of cuda/bench print.
import path from 'node:path';

import { root, run } from '../../../scripts/common.mjs';
import { jsonLines } from '../sides.mjs';
import { describe, groupBy } from '../statistics.mjs';

const FOLDER = 'build/cuda/bench';
const PROGRAMS = ['gemm', 'rows', 'prefill_attention', 'decode_attention', 'decode_step', 'sampling', 'collectives'];

/** What the programs call their ceilings, and how to speak of them. */
const CEILINGS = [
  { op: 'reading', says: 'reading 2 GiB of device memory', unit: 'GB/s' },
  { op: 'product of squares', says: 'multiplying matrices of 8,192 squared', unit: 'TFLOP/s' },
  { op: 'copying page-locked memory', says: 'copying page-locked memory to the device', unit: 'GB/s' },
];

/** The command of a program, and the figures it printed; whatever else it says is passed on. */
async function measure(program) {
  const command = `${FOLDER}/${program}_bench`;
  const { output } = await run(path.join(root, command), [], { capture: true });
  const remarks = output.split('\n').filter((line) => line !== '' && !line.startsWith('{'));
  for (const remark of remarks) console.log(`${program}: ${remark}`);
  return { command, lines: jsonLines(output) };
}

export const kernelSection = {
  title: 'Kernels of a GPU',
  text:
    'Each launched from a graph, by sizes. Microseconds are medians of 25 launches. The ceiling, measured in the same run ' +
    'of the program, is reading for what must read and a product of large squares for what must multiply, or whichever ' +
    'of them is lower; of few rows, what an op reads may lie in L2. Sums over ranks that share a device have no ceiling: ' +
    "NCCL's stand beside them.",
  header: ['| kernel | sizes | µs | rate | of the ceiling | command |', '|---|---|---|---|---|---|'],
  rows: PROGRAMS.map((program) => ({
    id: program,
    measure: () => measure(program),
    lines: ([{ command, lines }]) => {
      const kernels = lines.filter(({ op }) => !CEILINGS.some((ceiling) => ceiling.op === op));
      return [...groupBy(kernels, ({ op, unit }) => `${op} ${unit}`).values()].map((group, i) => {
        const list = (of) => group.map(of).join(', ');
        const shares = list(({ share }) => (share === undefined ? '' : (share * 100).toFixed(0)));
        const cells = [group[0].op, list(({ size }) => size), list(({ microseconds }) => describe(microseconds))];
        cells.push(`${list(({ rate }) => describe(rate))} ${group[0].unit}`);
        cells.push(group[0].share === undefined ? '' : `${shares} %`, i === 0 ? `\`${command}\`` : 'same');
        return `| ${cells.join(' | ')} |`;
      });
    },
  })),
};

/** A sentence of what all programs found that they could do at most. */
export function describeCeilings(results) {
  const lines = Object.values(results).flatMap(({ samples }) => samples.flatMap((sample) => sample.lines));
  const found = CEILINGS.flatMap(({ op, says, unit }) => {
    const rates = lines.filter((line) => line.op === op).map(({ rate }) => rate);
    if (rates.length === 0) return [];
    const range = [...new Set([Math.min(...rates), Math.max(...rates)].map(describe))].join(' to ');
    return [`${says} ran at ${range} ${unit}`];
  });
  return `In these runs ${found.join(', ')}.`;
}
