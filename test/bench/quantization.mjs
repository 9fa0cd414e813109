// `npm run bench:quantization`: 8-bit and 2:4 weights on a CPU, beside bfloat16 ones of ours and 8-bit ones of llama.cpp,
// through the public API. Written into docs/performance.md.
//
//   npm run bench:quantization -- [--rounds 5] [--add] [--peer] [--cache DIR]
//
// One engine a mode, all in memory at once (8 GB), so that they take turns within seconds; a round measures each of them
// twice, and the better figures count, as of the peer, which is a process of its own. Ratios are of the same round. The
// samples are kept in docs/quantization-performance.json: see document.mjs. `--add` keeps those of runs before beside the
// new ones, of the same machine; `--peer` installs what the peer needs.
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main } from '../../scripts/common.mjs';
import { setUp } from '../../scripts/setup.mjs';
import { measureFigures } from './document.mjs';
import { machineFacts } from './machine.mjs';
import { closeEngines, describeMachine, modeSections } from './performance/modes.mjs';

const FIGURES = {
  command: 'npm run bench:quantization',
  samples: 'docs/quantization-performance.json',
  sections: modeSections,
  machine: machineFacts,
  introduce: ({ modes }) => describeMachine(modes),
};

await main(async () => {
  const settings = readSettings();
  await setUp();
  try {
    await measureFigures(FIGURES, settings);
  } finally {
    await closeEngines();
  }
});

function readSettings() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      add: { type: 'boolean', default: false },
      peer: { type: 'boolean', default: false },
      cache: { type: 'string', default: path.join(os.tmpdir(), 'heddle-bench') },
    },
  });
  if (!/^[1-9]\d?$/.test(values.rounds)) throw new Error(`--rounds must be from 1 to 99, received '${values.rounds}'`);
  return { add: values.add, cache: values.cache, install: values.peer, rounds: Number(values.rounds) };
}
