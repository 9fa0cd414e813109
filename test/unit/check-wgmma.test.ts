import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

let folder: string;
beforeEach(() => (folder = mkdtempSync(path.join(os.tmpdir(), 'heddle-test-'))));
afterEach(() => rmSync(folder, { recursive: true }));

/** What the script says of an object whose code cuobjdump prints as this. */
function check(sass: string): { status: number | null; stdout: string } {
  const printed = path.join(folder, 'printed');
  writeFileSync(printed, sass);
  writeFileSync(path.join(folder, 'cuobjdump'), `#!/bin/sh\ncat '${printed}'\n`, { mode: 0o755 });
  const env = { ...process.env, PATH: `${folder}${path.delimiter}${process.env['PATH'] ?? ''}` };
  const script = path.resolve(__dirname, '../../scripts/check-wgmma.mjs');
  return spawnSync(process.execPath, [script, 'an.o'], { env, encoding: 'utf8' });
}

/** A loop of one product that leaves up to `pending` groups under way, and then loads four registers from `target` on. */
function loop(pending: number, target: string): string {
  const code = [
    'HFMA2.BF16_V2 R44, R50, R51.H0_H0, -2, -2',
    'HGMMA.64x64x16.F32.BF16 R8, R40, gdesc[UR4], R8, gsb0',
    `WARPGROUP.DEPBAR.LE gsb0, 0x${pending}`,
    `LDS.128 ${target}, [R60]`,
    '@!P0 BRA 0x100',
  ];
  const lines = code.map((each, i) => `        /*0${(0x100 + i * 16).toString(16)}*/   ${each} ;   /* 0x0 */`);
  return `\t\tFunction : kernel\n${lines.join('\n')}\n`;
}

test('a register that is written while a product reads it is named', () => {
  const { status, stdout } = check(loop(1, 'R38'));
  expect(stdout).toBe(
    'kernel: 130: LDS.128 R38, [R60]\n1 objects, 1 loops, 1 registers overwritten that products read\n',
  );
  expect(status).toBe(1);
});

test('other registers may be written, and those of products that have ended', () => {
  expect(check(loop(1, 'R36')).status).toBe(0);
  expect(check(loop(0, 'R38')).status).toBe(0);
});

test('code without such a loop is no code to be content with', () => {
  expect(check('\t\tFunction : kernel\n').status).toBe(1);
});
