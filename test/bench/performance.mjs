// `npm run bench:performance`: every figure of a CPU in docs/performance.md, written there.
//
//   npm run bench:performance -- [--rounds 5] [--only ROW,...] [--peer] [--cache DIR]
//
// In each round of a row, the machine's ceilings and all that the row compares take turns. Figures are medians over the
// rounds; a ratio is the median of the rounds' own ratios, with their spread. The samples are kept in
// docs/performance.json: see document.mjs.
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main } from '../../scripts/common.mjs';
import { setUp } from '../../scripts/setup.mjs';
import { measureFigures, readOnly } from './document.mjs';
import { machineFacts } from './machine.mjs';
import { engineSection } from './performance/engine.mjs';
import { peerSection } from './performance/peer.mjs';
import { productSection } from './performance/products.mjs';
import { scalingSection } from './performance/scaling.mjs';

const FIGURES = {
  command: 'npm run bench:performance',
  samples: 'docs/performance.json',
  sections: [peerSection, scalingSection, engineSection, productSection],
  machine: machineFacts,
  introduce: describeMachines,
};

await main(async () => {
  const settings = readSettings();
  await setUp();
  await measureFigures(FIGURES, settings);
});

function readSettings() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      only: { type: 'string' },
      peer: { type: 'boolean', default: false },
      cache: { type: 'string', default: path.join(os.tmpdir(), 'heddle-bench') },
    },
  });
  if (!/^[1-9]\d?$/.test(values.rounds)) throw new Error(`--rounds must be from 1 to 99, received '${values.rounds}'`);
  const only = readOnly(values.only, FIGURES);
  return { only, cache: values.cache, install: values.peer, rounds: Number(values.rounds) };
}

function describeMachines(results) {
  const rows = Object.values(results);
  const machines = rows.map(({ machine: { cpu, cores, isa, node } }) => {
    return `${cpu}, ${cores} cores, ${isa.join(' ')}, Node ${node}`;
  });
  const busy = Math.round(Math.max(...rows.map(({ machine }) => machine.busyBefore)) * 100);
  const rounds = rows.map(({ samples }) => samples.length);
  const range = [...new Set([Math.min(...rounds), Math.max(...rounds)])].join(' to ');
  return (
    `${[...new Set(machines)].join('; ')}. ${range} rounds a row; ` +
    `other programs took up to ${busy} % of the processors before.`
  );
}
