// Whether machine code leaves registers alone that products under way read: `npm run check:wgmma -- [OBJECT...]`.
//
// A product of a warpgroup (wgmma) may take its left operand from registers, a sparse one takes its metadata from one,
// and both are read until the wait for the product's group has ended. The compiler gives the operand's registers to
// nothing else until then, but does not look across branches; the metadata's it gives away at once. Whether they are
// overwritten thus depends on what the compiler happens to do. So this follows its code, as cuobjdump prints it, from
// each product on along every way that branches may take, to the wait. Objects are those of the CUDA build unless given.
import { listFiles, main, run } from './common.mjs';

const OBJECTS = 'build/cuda/cmake/CMakeFiles/heddle_cuda_objects.dir';
const PRODUCT = /^[A-Z]GMMA/;
const WAIT = /^WARPGROUP\.DEPBAR\.LE gsb0, 0x([0-9a-f]+)/;
const REGISTER = /^R(\d+)\b/;
const PREDICATE = /^!?U?P(?:\d|T)$/;
// Their registers are read, or they write predicates alone.
const WRITES_NO_REGISTER = /^(?:BAR|BRX|CALL|NANOSLEEP|RET|WARPSYNC|PLOP3|R2P|[A-Z]+SETP)/;

/** Of each kernel of cuobjdump's text, how many products read registers, and the instructions that overwrite those. */
function overwrites(sass) {
  const found = [];
  let numProducts = 0;
  for (const text of sass.split('Function : ').slice(1)) {
    const kernel = text.slice(0, text.indexOf('\n')).trim();
    const instructions = [...text.matchAll(/\n\s+\/\*([0-9a-f]{4,6})\*\/\s+([^;]*?)\s*;/g)].map(
      ([, address, printed]) => {
        const code = printed.replace(/^@!?U?P\w+ /, '').replace(/\s+/g, ' ');
        return { address: parseInt(address, 16), code, predicated: printed.startsWith('@') };
      },
    );
    numProducts += instructions.filter(({ code }) => PRODUCT.test(code) && registersRead(code).length > 0).length;
    for (const { address, code } of overwritesIn(instructions)) found.push({ kernel, address, code });
  }
  return { numProducts, found };
}

/** Goes from each product with nothing else under way, and so finds what is written before the wait for it. */
function overwritesIn(instructions) {
  const places = new Map(instructions.map(({ address }, place) => [address, place]));
  const found = new Map();
  const seen = new Set();
  // `groups` of products under way, oldest first, and of those that no group has closed: the registers that they read.
  const ways = instructions.flatMap(({ code }, place) => (PRODUCT.test(code) ? [{ place, groups: [], open: [] }] : []));
  while (ways.length > 0) {
    const { place, groups, open } = ways.pop();
    const key = `${place}:${groups.join('|')}:${open.join()}`;
    const instruction = instructions[place];
    if (instruction === undefined || seen.has(key)) continue;
    seen.add(key);
    const { address, code } = instruction;
    let after = { groups, open };
    const wait = WAIT.exec(code);
    if (PRODUCT.test(code)) {
      const read = union(open, registersRead(code));
      after = code.includes('gsb0') ? { groups: withGroup(groups, read), open: [] } : { groups, open: read };
    } else if (wait) {
      const left = parseInt(wait[1], 16);
      after = { groups: left === 0 ? [] : groups.slice(-left), open };
    } else {
      const underWay = [...groups, open].flat();
      if (registersWritten(code).some((each) => underWay.includes(each))) found.set(address, { address, code });
    }
    if (after.groups.length === 0 && after.open.length === 0) continue;
    for (const next of placesAfter(instruction, place, places)) ways.push({ place: next, ...after });
  }
  return [...found.values()].sort((a, b) => a.address - b.address);
}

/** No wait leaves more than seven groups under way, so older ones, in a loop without a wait, count as one. */
function withGroup(groups, group) {
  const all = [...groups, group];
  return all.length <= 8 ? all : [union(all[0], all[1]), ...all.slice(2)];
}

function union(a, b) {
  return [...new Set([...a, ...b])].sort((x, y) => x - y);
}

/** Where an instruction may lead. */
function placesAfter({ code, predicated }, place, places) {
  if (/^(?:EXIT|RET)\b/.test(code)) return predicated ? [place + 1] : [];
  const target = /^BRA\b.*\b0x([0-9a-f]+)$/.exec(code)?.[1];
  if (target === undefined) return [place + 1];
  const to = places.get(parseInt(target, 16));
  const always = !predicated && /^BRA(?:\.\w+)* 0x/.test(code);
  return [...(to === undefined ? [] : [to]), ...(always ? [] : [place + 1])];
}

/** A product's left operand, four registers, and a sparse one's metadata. */
function registersRead(code) {
  const [sums, left, ...others] = operandsOf(code);
  const first = REGISTER.exec(left);
  const read = first ? [0, 1, 2, 3].map((i) => Number(first[1]) + i) : [];
  if (/^\w+\.SP\b/.test(code)) {
    const metadata = others.find((each) => REGISTER.test(each) && REGISTER.exec(each)[1] !== REGISTER.exec(sums)[1]);
    if (metadata !== undefined) read.push(Number(REGISTER.exec(metadata)[1]));
  }
  return read;
}

function registersWritten(code) {
  if (WRITES_NO_REGISTER.test(code)) return [];
  const operation = code.split(' ', 1)[0];
  const register = REGISTER.exec(operandsOf(code).find((each) => !PREDICATE.test(each)) ?? '');
  if (!register) return [];
  let count = 1;
  if (/\.128\b/.test(operation) || /^LDSM.*\.4$/.test(operation)) count = 4;
  else if (/\.64\b|\.WIDE\b/.test(operation) || /^LDSM.*\.2$/.test(operation) || operation === 'CS2R') count = 2;
  return Array.from({ length: count }, (_, i) => Number(register[1]) + i);
}

function operandsOf(code) {
  return code.includes(' ') ? code.slice(code.indexOf(' ') + 1).split(/,\s*(?![^[]*\])/) : [];
}

await main(async () => {
  const given = process.argv.slice(2);
  const objects =
    given.length > 0 ? given : listFiles(OBJECTS).filter((file) => /(?:tiles|wgmma|skinny)\.cu\.o$/.test(file));
  if (objects.length === 0) throw new Error(`no objects in ${OBJECTS}; \`npm run build:cuda\` makes them`);
  let failures = 0;
  let products = 0;
  for (const object of objects) {
    const { output } = await run('cuobjdump', ['-sass', object], { capture: true });
    const { numProducts, found } = overwrites(output);
    products += numProducts;
    failures += found.length;
    for (const { kernel, address, code } of found) console.log(`${kernel}: ${address.toString(16)}: ${code}`);
  }
  console.log(`${objects.length} objects, ${products} products, ${failures} registers overwritten that products read`);
  return failures > 0 || products === 0 ? 1 : 0;
});
