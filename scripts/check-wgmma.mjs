// Whether machine code leaves registers alone that products under way read: `npm run check:wgmma -- [OBJECT...]`.
//
// A product of a warpgroup (wgmma) may take its left operand from registers, and reads them until the wait for its group
// has ended. The compiler gives them to nothing else until then, but does not look across branches: in a loop whose
// products are under way from one round to the next, they may be overwritten. Whether they are depends on the compiler,
// so this reads what it made, of all loops with such products, by cuobjdump. Objects are those of the CUDA build unless
// given.
import { listFiles, main, run } from './common.mjs';

const OBJECTS = 'build/cuda/cmake/CMakeFiles/heddle_cuda_objects.dir';
const PRODUCT = /^HGMMA\S* R\d+, R(\d+),/;
const WAIT = /^WARPGROUP\.DEPBAR\.LE gsb0, 0x([0-9a-f]+)/;
const WRITE = /^([A-Z][\w.]*) (?:P\d, )?R(\d+)/;
const WRITES_NOTHING = /^(?:ST|RED|SYNCS|BRA|BAR|UTMA)/;

/** Instructions that write registers of products under way, of each kernel of cuobjdump's text. */
function overwrites(sass) {
  const found = [];
  let numLoops = 0;
  for (const text of sass.split('Function : ').slice(1)) {
    const kernel = text.slice(0, text.indexOf('\n')).trim();
    const instructions = [...text.matchAll(/\n\s+\/\*([0-9a-f]{4,6})\*\/\s+([^;]*?)\s*;/g)].map(
      ([, address, code]) => ({
        address: parseInt(address, 16),
        code: code.replace(/^@!?U?P\w+ /, '').replace(/\s+/g, ' '),
      }),
    );
    for (const loop of loopsOf(instructions)) {
      ++numLoops;
      for (const { address, code } of overwritesIn(loop)) found.push({ kernel, address, code });
    }
  }
  return { numLoops, found };
}

/** Innermost loops with products that read registers, as lists of instructions. */
function loopsOf(instructions) {
  const places = new Map(instructions.map(({ address }, index) => [address, index]));
  const loops = [];
  instructions.forEach(({ code }, end) => {
    const target = /^BRA\b.* 0x([0-9a-f]+)$/.exec(code)?.[1];
    const begin = target === undefined ? undefined : places.get(parseInt(target, 16));
    if (begin === undefined || begin > end) return;
    const body = instructions.slice(begin, end + 1);
    if (!body.some((each) => PRODUCT.test(each.code))) return;
    if (loops.some((loop) => loop.begin >= begin && loop.end <= end)) return;
    loops.push({ begin, end, body });
  });
  return loops.map(({ body }) => body);
}

/** Twice around the loop, as if it had no branches. */
function overwritesIn(loop) {
  const found = new Map();
  let groups = []; // of products under way, each the registers that they read
  let open = new Set();
  for (const { address, code } of [...loop, ...loop]) {
    const product = PRODUCT.exec(code);
    const wait = WAIT.exec(code);
    if (code.startsWith('HGMMA')) {
      if (product) for (let i = 0; i < 4; ++i) open.add(Number(product[1]) + i);
      if (code.includes('gsb0')) {
        groups.push(open);
        open = new Set();
      }
    } else if (wait) {
      const left = parseInt(wait[1], 16);
      groups = left === 0 ? [] : groups.slice(-left);
    } else if (!WRITES_NOTHING.test(code)) {
      const registers = written(code);
      if ([...groups, open].some((group) => registers.some((each) => group.has(each)))) {
        found.set(address, { address, code });
      }
    }
  }
  return [...found.values()];
}

function written(code) {
  const match = WRITE.exec(code);
  if (!match) return [];
  const [, operation, register] = match;
  const count = /\.128\b/.test(operation) ? 4 : /\.64\b|\.WIDE\b/.test(operation) ? 2 : 1;
  return Array.from({ length: count }, (_, i) => Number(register) + i);
}

await main(async () => {
  const given = process.argv.slice(2);
  const objects =
    given.length > 0 ? given : listFiles(OBJECTS).filter((file) => /(?:tiles|wgmma|skinny)\.cu\.o$/.test(file));
  if (objects.length === 0) throw new Error(`no objects in ${OBJECTS}; \`npm run build:cuda\` makes them`);
  let failures = 0;
  let loops = 0;
  for (const object of objects) {
    const { output } = await run('cuobjdump', ['-sass', object], { capture: true });
    const { numLoops, found } = overwrites(output);
    loops += numLoops;
    failures += found.length;
    for (const { kernel, address, code } of found) console.log(`${kernel}: ${address.toString(16)}: ${code}`);
  }
  console.log(`${objects.length} objects, ${loops} loops, ${failures} registers overwritten that products read`);
  return failures > 0 || loops === 0 ? 1 : 0;
});
