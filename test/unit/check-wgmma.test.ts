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

/** What cuobjdump prints of a kernel with this code, from address 100 on, 10 an instruction, hexadecimal. */
function kernel(...code: string[]): string {
  const lines = code.map((each, i) => `        /*0${(0x100 + i * 16).toString(16)}*/   ${each} ;   /* 0x0 */`);
  return `\t\tFunction : kernel\n${lines.join('\n')}\n`;
}

const PRODUCT = 'HGMMA.64x64x16.F32.BF16 R8, R40, gdesc[UR4], R8, gsb0';

/** A loop of one product that leaves up to `pending` groups under way, and then does this. */
function loop(pending: number, instruction: string): string {
  const wait = `WARPGROUP.DEPBAR.LE gsb0, 0x${pending}`;
  return kernel('HFMA2.BF16_V2 R44, R50, R51.H0_H0, -2, -2', PRODUCT, wait, instruction, '@!P0 BRA 0x100', 'EXIT');
}

/** The instructions that are named, and how often. */
function named(sass: string): string[] {
  const { status, stdout } = check(sass);
  const found = [...stdout.matchAll(/^kernel: [0-9a-f]+: (.*)$/gm)].map(([, code]) => code!);
  expect(stdout).toContain(`${found.length} registers overwritten`);
  expect(status).toBe(found.length > 0 ? 1 : 0);
  return found;
}

test('a register that is written while a product reads it is named, with its kernel and address', () => {
  const { status, stdout } = check(loop(1, 'LDS.128 R38, [R60]'));
  expect(stdout).toBe(
    'kernel: 130: LDS.128 R38, [R60]\n1 objects, 1 products, 1 registers overwritten that products read\n',
  );
  expect(status).toBe(1);
});

test('other registers may be written, and those of products that have ended', () => {
  expect(named(loop(1, 'LDS.128 R36, [R60]'))).toEqual([]);
  expect(named(loop(0, 'LDS.128 R38, [R60]'))).toEqual([]);
});

test('an instruction that only reads them, or writes a predicate, is none', () => {
  for (const code of ['STS.128 [R60], R40', 'ISETP.NE.AND P1, PT, R41, RZ, PT', 'R2UR UR4, R40']) {
    expect(named(loop(1, code))).toEqual([]);
  }
});

test('writes are found wherever an instruction names what it writes, and however many registers that is', () => {
  for (const code of ['SHFL.IDX PT, R41, R2, R3, 0x1f', 'LDSM.16.M88.4 R37, [R2]', 'CS2R R42, SRZ']) {
    expect(named(loop(1, code))).toEqual([code]);
  }
});

test('metadata of sparse products are watched, of floats and of integers', () => {
  for (const type of ['HGMMA.SP.64x64x32.F32.BF16', 'IGMMA.SP.64x64x64.S8.S8']) {
    const product = `${type} R8, gdesc[UR4], R8, R52, 0x0, gsb0`;
    const wait = 'WARPGROUP.DEPBAR.LE gsb0, 0x0';
    expect(named(kernel(product, 'LDS R52, [R60]', wait, 'EXIT'))).toEqual(['LDS R52, [R60]']);
    expect(named(kernel(product, wait, 'LDS R52, [R60]', 'EXIT'))).toEqual([]);
  }
});

test('code is followed out of a loop, into blocks beside it, and past early turns', () => {
  const wait = 'WARPGROUP.DEPBAR.LE gsb0, 0x0';
  const write = 'MOV R40, R2';
  expect(named(kernel(PRODUCT, '@P0 BRA 0x100', write, wait, 'EXIT'))).toEqual([write]);
  expect(named(kernel(PRODUCT, '@P0 BRA 0x140', wait, 'EXIT', write, 'BRA 0x120'))).toEqual([write]);
  const early = kernel(PRODUCT, '@P0 BRA 0x100', wait, 'NOP', PRODUCT, write, '@P1 BRA 0x100', wait, 'EXIT');
  expect(named(early)).toEqual([write]);
  expect(named(kernel(PRODUCT, 'BRA 0x130', write, wait, 'EXIT'))).toEqual([]);
});

test('code without such a product is no code to be content with', () => {
  expect(check('\t\tFunction : kernel\n').status).toBe(1);
});
