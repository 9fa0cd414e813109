// `npm run bench:performance`: every figure of docs/performance.md, written there.
//
//   npm run bench:performance -- [--rounds 5] [--only ROW,...] [--peer] [--cache DIR]
//
// In each round of a row, the machine's ceilings and all that the row compares take turns. Figures are medians over the
// rounds; a ratio is the median of the rounds' own ratios, with their spread. The samples are kept in
// docs/performance.json, from which the document is written: rows that are not measured again stay, each with the
// machine it was measured on.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { main, root } from '../../scripts/common.mjs';
import { setUp } from '../../scripts/setup.mjs';
import { machineFacts, shareTakenByOthers } from './machine.mjs';
import { engineSection } from './performance/engine.mjs';
import { peerSection } from './performance/peer.mjs';
import { productSection } from './performance/products.mjs';
import { scalingSection } from './performance/scaling.mjs';

// A row has an id, `measure(settings, prepared)` for a sample, where `prepared` is what its `prepare(settings)` gave if it
// has one, and `lines(samples)` for its part of the section's table.
const SECTIONS = [peerSection, scalingSection, engineSection, productSection];
const DOCUMENT = path.join(root, 'docs/performance.md');
const SAMPLES = path.join(root, 'docs/performance.json');
const MARK = { begin: '<!-- figures: written by npm run bench:performance -->', end: '<!-- end of figures -->' };

await main(async () => {
  const settings = readSettings();
  await setUp();
  const rows = SECTIONS.flatMap((section) => section.rows).filter(({ id }) => settings.only?.includes(id) ?? true);
  const results = existsSync(SAMPLES) ? JSON.parse(readFileSync(SAMPLES, 'utf8')) : {};
  for (const row of rows) {
    const prepared = await row.prepare?.(settings);
    const busyBefore = await shareTakenByOthers();
    if (busyBefore > 0.1) console.log('CAUTION: other programs are running; these figures mean little');
    const samples = [];
    for (let round = 0; round < settings.rounds; round++) samples.push(await row.measure(settings, prepared));
    results[row.id] = { machine: { ...machineFacts(), busyBefore }, samples };
    writeFileSync(SAMPLES, `${JSON.stringify(results)}\n`);
    writeDocument(results);
    console.log(row.lines(samples).join('\n'));
  }
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
  const ids = SECTIONS.flatMap((section) => section.rows.map(({ id }) => id));
  const only = values.only?.split(',');
  const unknown = only?.find((id) => !ids.includes(id));
  if (unknown !== undefined) throw new Error(`--only must name rows of ${ids.join(', ')}, received '${unknown}'`);
  return { only, cache: values.cache, install: values.peer, rounds: Number(values.rounds) };
}

function writeDocument(results) {
  const [before, rest] = readFileSync(DOCUMENT, 'utf8').split(MARK.begin);
  const after = rest?.split(MARK.end)[1];
  if (after === undefined) throw new Error(`${DOCUMENT} lacks the lines ${MARK.begin} and ${MARK.end}`);
  const sections = SECTIONS.flatMap((section) => {
    const measured = section.rows.filter(({ id }) => results[id] !== undefined);
    const lines = measured.flatMap((row) => row.lines(results[row.id].samples));
    return lines.length === 0 ? [] : [`## ${section.title}`, '', section.text, '', ...section.header, ...lines, ''];
  });
  const machines = describeMachines(results);
  writeFileSync(
    DOCUMENT,
    [before.trimEnd(), '', MARK.begin, '', machines, '', ...sections, `${MARK.end}${after}`].join('\n'),
  );
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
