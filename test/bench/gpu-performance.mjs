// `npm run bench:gpu-performance`: every figure of a GPU in docs/performance.md, written there.
//
//   npm run bench:gpu-performance -- [--only ROW,...] [--rounds 3] [--folder DIR] [--device cuda] [--shape 8b]
//
// Runs `npm run bench:gpu`, which takes all options but the first, and the programs of build/cuda/bench, each of which
// takes its medians and its ceiling itself. What they print is kept in docs/gpu-performance.json: see document.mjs. Builds
// nothing, as there may be no compiler where the GPU is: `npm run build`, `npm run build:cuda -- --bench` and
// `node test/bench/native.mjs engine` do.
import { parseArgs } from 'node:util';

import { main } from '../../scripts/common.mjs';
import { measureFigures, readOnly } from './document.mjs';
import { gpuFacts, machineFacts } from './machine.mjs';
import { gpuSection } from './performance/gpu.mjs';
import { describeCeilings, kernelSection } from './performance/gpu-kernels.mjs';
import { groupBy } from './statistics.mjs';

const FIGURES = {
  command: 'npm run bench:gpu-performance',
  samples: 'docs/gpu-performance.json',
  sections: [gpuSection, kernelSection],
  machine: async () => ({ ...machineFacts(), ...(await gpuFacts()), date: new Date().toISOString().slice(0, 10) }),
  introduce: (results) => `${describeMachines(results)} ${describeCeilings(results)}`,
};

await main(() => measureFigures(FIGURES, readSettings()));

function readSettings() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      folder: { type: 'string' },
      device: { type: 'string' },
      shape: { type: 'string' },
    },
  });
  const { only, ...options } = values;
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return { only: readOnly(only, FIGURES), rounds: 1, options: given.flatMap(([key, value]) => [`--${key}`, value]) };
}

/** One sentence where all rows are of one machine and day, else one a group of rows. */
function describeMachines(results) {
  const groups = groupBy(Object.keys(results), (id) => {
    const { gpu, driver, cpu, cores, node, date } = results[id].machine;
    return `${gpu}, driver ${driver}, beside ${cpu}, ${cores} cores, Node ${node}, on ${date}`;
  });
  const machines = [...groups].map(([text, ids]) => (groups.size === 1 ? text : `${text} (${ids.join(', ')})`));
  const busy = Math.max(...Object.values(results).map(({ machine }) => machine.busyBefore));
  return `${machines.join('; ')}. Other programs took up to ${Math.round(busy * 100)} % of the processors before.`;
}
