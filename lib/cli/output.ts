/**
 * Writing to stdout, and how figures look.
 *
 * @module
 */
import { once } from 'node:events';

/** Writes to stdout at the pace of its reader. */
export async function write(text: string): Promise<void> {
  if (text !== '' && !process.stdout.write(text)) await once(process.stdout, 'drain');
}

/**
 * Ends the program when its output goes nowhere: quietly when the reader is gone, as with `heddle generate | head -1`, and
 * with a message for anything else, such as a full disk.
 */
export function exitWhenOutputFails(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    process.stderr.write(`heddle: cannot write the output: ${error.message}\n`);
    process.exit(1);
  });
  process.stderr.on('error', (error: NodeJS.ErrnoException) => {
    // Nobody is left to tell of another error.
    process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
}

/** Rows under a header, columns aligned: the first to the left, the others to the right. */
export function table(header: string[], rows: string[][]): string {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  const pad = (cell: string, column: number): string =>
    column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!);
  return lines.map((line) => line.map(pad).join('  ').trimEnd()).join('\n') + '\n';
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** Bytes in the largest unit that leaves at least 1, such as `15.5 MiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    ++unit;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]!}`;
}

/** A rate with three digits that mean something, such as `0.83`, `14.5` or `2367`. */
export function formatRate(perSecond: number): string {
  if (!Number.isFinite(perSecond)) return '-';
  return perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toPrecision(3);
}
