// Figures that a command writes into docs/performance.md, between two marks of its own, from samples that it keeps in a
// file of JSON: rows that are not measured again stay, each with the machine it was measured on.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { root } from '../../scripts/common.mjs';
import { shareTakenByOthers } from './machine.mjs';

const DOCUMENT = path.join(root, 'docs/performance.md');
const END = '<!-- end of figures -->';

/**
 * Measures rows, those that `settings.only` names or all of them, each `settings.rounds` times, and writes all that has
 * ever been measured. With `settings.add` the samples that are kept of a row stay beside the new ones, which must be of
 * the same machine.
 *
 * @param figures `{ command, samples, sections, machine, introduce }`: the command for the mark, the file of the samples
 *   (`{ row: { machine, samples } }`), the facts of the machine that a row is kept with, and `introduce(results)` for what
 *   stands above the sections. A section has `title`, if any, `text`, `header` of a table, and `rows`. A row has an `id`,
 *   `measure(settings, prepared)` for a sample, where `prepared` is what its `prepare(settings)` gave if it has one, and
 *   `lines(samples)` for its part of the table. One without `measure` shows the samples of the other row of its id.
 */
export async function measureFigures(figures, settings) {
  const file = path.join(root, figures.samples);
  const results = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
  const rows = figures.sections.flatMap((section) => section.rows).filter((row) => row.measure !== undefined);
  for (const row of rows.filter(({ id }) => settings.only?.includes(id) ?? true)) {
    const prepared = await row.prepare?.(settings);
    const busyBefore = await shareTakenByOthers();
    if (busyBefore > 0.1) console.log('CAUTION: other programs are running; these figures mean little');
    const machine = await figures.machine();
    const kept = settings.add ? results[row.id] : undefined;
    if (kept !== undefined) requireSameMachine(row.id, kept.machine, machine);
    const samples = [...(kept?.samples ?? [])];
    for (let round = 0; round < settings.rounds; round++) samples.push(await row.measure(settings, prepared));
    results[row.id] = {
      machine: { ...machine, busyBefore: Math.max(busyBefore, kept?.machine.busyBefore ?? 0) },
      samples,
    };
    writeFileSync(file, `${JSON.stringify(results)}\n`);
    writeDocument(figures, results);
    console.log(row.lines(samples).join('\n'));
  }
  writeDocument(figures, results);
}

function requireSameMachine(id, kept, machine) {
  for (const [fact, value] of Object.entries(machine)) {
    if (JSON.stringify(kept[fact]) !== JSON.stringify(value)) {
      throw new Error(`--add must add to samples of the same ${fact}: those of ${id} have ${kept[fact]}, not ${value}`);
    }
  }
}

/** The rows that `--only` names, checked: none for '', so that the document is only written again; undefined without it. */
export function readOnly(only, { sections }) {
  const ids = [...new Set(sections.flatMap((section) => section.rows.map(({ id }) => id)))];
  const chosen = only?.split(',').filter((id) => id !== '');
  const unknown = chosen?.find((id) => !ids.includes(id));
  if (unknown !== undefined) throw new Error(`--only must name rows of ${ids.join(', ')}, received '${unknown}'`);
  return chosen;
}

function writeDocument({ command, sections, introduce }, results) {
  const text = readFileSync(DOCUMENT, 'utf8');
  const mark = `<!-- figures: written by ${command} -->`;
  const begin = text.indexOf(mark);
  const end = text.indexOf(END, begin);
  if (begin < 0 || end < 0) throw new Error(`${DOCUMENT} lacks the lines ${mark} and ${END}`);
  const written = sections.flatMap((section) => {
    const measured = section.rows.filter(({ id }) => results[id] !== undefined);
    const lines = measured.flatMap((row) => row.lines(results[row.id].samples));
    if (lines.length === 0) return [];
    const title = section.title === undefined ? [] : [`## ${section.title}`, ''];
    return [...title, section.text, '', ...section.header, ...lines, ''];
  });
  const part = [mark, '', introduce(results), '', ...written].join('\n');
  writeFileSync(DOCUMENT, `${text.slice(0, begin)}${part}\n${text.slice(end)}`);
}
