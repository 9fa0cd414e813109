import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

let folder: string;
beforeEach(() => (folder = mkdtempSync(path.join(os.tmpdir(), 'heddle-test-'))));
afterEach(() => rmSync(folder, { recursive: true }));

/** What the script says of objects whose code cuobjdump prints as these. */
function check(...printed: string[]): { status: number | null; stdout: string } {
  const objects = printed.map((sass, i) => {
    const object = path.join(folder, `${i}.o`);
    writeFileSync(object, sass);
    return object;
  });
  writeFileSync(path.join(folder, 'cuobjdump'), `#!/bin/sh\ncat "$2"\n`, { mode: 0o755 });
  const env = { ...process.env, PATH: `${folder}${path.delimiter}${process.env['PATH'] ?? ''}` };
  const script = path.resolve(__dirname, '../../scripts/check-wgmma.mjs');
  return spawnSync(process.execPath, [script, ...objects], { env, encoding: 'utf8' });
}

/** What cuobjdump prints of a kernel with this code, from address 100 on, 10 an instruction, hexadecimal. */
function kernel(...code: string[]): string {
  const lines = code.map((each, i) => `        /*0${(0x100 + i * 16).toString(16)}*/   ${each} ;   /* 0x0 */`);
  return `\t\tFunction : kernel\n${lines.join('\n')}\n`;
}

// Its sums are R8 to R23.
const PRODUCT = 'HGMMA.64x32x16.F32.BF16 R8, R40, gdesc[UR4], R8, gsb0';
const WAIT = 'WARPGROUP.DEPBAR.LE gsb0, 0x0';

/** A loop of one product that leaves up to `pending` groups under way, and then does this. */
function loop(pending: number, instruction: string): string {
  const wait = `WARPGROUP.DEPBAR.LE gsb0, 0x${pending}`;
  return kernel('HFMA2.BF16_V2 R44, R50, R51.H0_H0, -2, -2', PRODUCT, wait, instruction, '@!P0 BRA 0x100', 'EXIT');
}

/** The instructions that are named, and how often. */
function named(sass: string): string[] {
  const { status, stdout } = check(sass);
  const found = [...stdout.matchAll(/^kernel: [0-9a-f]+: (.*)$/gm)].map(([, code]) => code!);
  expect(stdout).toContain(`${found.length} faults`);
  expect(status).toBe(found.length > 0 ? 1 : 0);
  return found;
}

test('a register that is written while a product reads it is named, with its kernel and address', () => {
  const { status, stdout } = check(loop(1, 'LDS.128 R38, [R60]'));
  expect(stdout).toBe('kernel: 130: LDS.128 R38, [R60]\n1 objects, 1 products, 1 faults while they are under way\n');
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
    expect(named(kernel(product, 'LDS R52, [R60]', WAIT, 'EXIT'))).toEqual(['LDS R52, [R60]']);
    expect(named(kernel(product, WAIT, 'LDS R52, [R60]', 'EXIT'))).toEqual([]);
  }
});

test('code is followed out of a loop, into blocks beside it, and past early turns', () => {
  const write = 'MOV R40, R2';
  expect(named(kernel(PRODUCT, '@P0 BRA 0x100', write, WAIT, 'EXIT'))).toEqual([write]);
  expect(named(kernel(PRODUCT, '@P0 BRA 0x140', WAIT, 'EXIT', write, 'BRA 0x120'))).toEqual([write]);
  const early = kernel(PRODUCT, '@P0 BRA 0x100', WAIT, 'NOP', PRODUCT, write, '@P1 BRA 0x100', WAIT, 'EXIT');
  expect(named(early)).toEqual([write]);
  expect(named(kernel(PRODUCT, 'BRA 0x130', write, WAIT, 'EXIT'))).toEqual([]);
});

test('what leads elsewhere while a product is under way is a fault', () => {
  for (const code of ['CALL.REL.NOINC 0x2000', 'BRX R2 -0x100', 'JMP 0x2000', 'RET.REL.NODEC R2 0x0']) {
    expect(named(kernel(PRODUCT, code, WAIT, 'EXIT'))).toEqual([code]);
    expect(named(kernel(PRODUCT, WAIT, code, 'EXIT'))).toEqual([]);
  }
});

test('a wait under a predicate is none', () => {
  expect(named(kernel(PRODUCT, `@P0 ${WAIT}`, 'MOV R40, R2', WAIT, 'EXIT'))).toEqual(['MOV R40, R2']);
});

test('a product under a predicate may have begun, and may not be what a wait leaves under way', () => {
  const other = '@P0 HGMMA.64x32x16.F32.BF16 R8, R60, gdesc[UR4], R8, gsb0';
  expect(named(kernel(other, 'MOV R60, R2', WAIT, 'EXIT'))).toEqual(['MOV R60, R2']);
  const one = 'WARPGROUP.DEPBAR.LE gsb0, 0x1';
  expect(named(kernel(PRODUCT, other, one, 'MOV R40, R2', WAIT, 'EXIT'))).toEqual(['MOV R40, R2']);
});

test('conversions to 64 bits and products of other kinds write several registers', () => {
  const wide = ['F2I.U64.TRUNC R39, R2', 'I2F.F64 R39, R2', 'DADD R39, R2, R4', 'DFMA R39, R2, R4, R6'];
  for (const code of [...wide, 'HMMA.16816.F32 R37, R2, R4, R6', 'IMMA.16832.S8.S8 R37, R2, R4, R6']) {
    expect(named(loop(1, code))).toEqual([code]);
  }
  for (const code of ['I2F.U64.RP R39, R2', 'F2F.F32.F64 R39, R2', 'FCHK P0, R40, R41']) {
    expect(named(loop(1, code))).toEqual([]);
  }
});

test('nothing else reads or writes the sums of a product under way', () => {
  for (const code of ['MOV R23, R2', 'FMUL R60, R2, -R8', 'STG.E.128 desc[UR4][R60.64], R5', 'LDS R60, [R23+0x10]']) {
    expect(named(kernel(PRODUCT, code, WAIT, 'EXIT'))).toEqual([code]);
    expect(named(kernel(PRODUCT, WAIT, code, 'EXIT'))).toEqual([]);
  }
  for (const code of ['MOV R24, R7', 'STG.E.64 desc[UR4][R60.64], R6', 'LDS R60, [R7+0x10]']) {
    expect(named(kernel(PRODUCT, code, WAIT, 'EXIT'))).toEqual([]);
  }
});

test('a product adds to the sums of one under way, and otherwise leaves its registers alone', () => {
  const after = (sums: string, left: string): string[] => {
    const second = `HGMMA.64x32x16.F32.BF16 ${sums}, ${left}, gdesc[UR4], ${sums}, gsb0`;
    return named(kernel(PRODUCT, second, WAIT, 'EXIT')).map((code) => code.slice(0, code.indexOf(', gdesc')));
  };
  expect(after('R8', 'R44')).toEqual([]);
  expect(after('R44', 'R40')).toEqual([]);
  expect(after('R16', 'R44')).toEqual(['HGMMA.64x32x16.F32.BF16 R16, R44']);
  expect(after('R32', 'R60')).toEqual(['HGMMA.64x32x16.F32.BF16 R32, R60']);
  expect(after('R44', 'R20')).toEqual(['HGMMA.64x32x16.F32.BF16 R44, R20']);
});

test('an object without products is no object to be content with, even beside others', () => {
  const { status, stdout } = check(kernel(PRODUCT, WAIT, 'EXIT'), '\t\tFunction : kernel\n');
  expect(stdout).toMatch(/1\.o: no products\n2 objects, 1 products, 0 faults/);
  expect(status).toBe(1);
});
