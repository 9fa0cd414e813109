// Whether machine code leaves registers alone that products under way use: `npm run check:wgmma -- [OBJECT...]`.
//
// A product of a warpgroup (wgmma) has its sums in registers, may take its left operand from registers, and a sparse one
// takes its metadata from one, until the wait for the product's group has ended. The compiler gives the operand's
// registers to nothing else until then, but does not look across branches; the metadata's it gives away at once. Whether
// they are overwritten thus depends on what the compiler happens to do. So this follows its code, as cuobjdump prints
// it, from each product on along every way that branches may take, to the wait. What leads elsewhere meanwhile, such as
// a call, is a fault too. Objects are those of the CUDA build unless given.
import { listFiles, main, run } from './common.mjs';

const OBJECTS = 'build/cuda/cmake/CMakeFiles/heddle_cuda_objects.dir';
const PRODUCT = /^[A-Z]GMMA/;
const WAIT = /^WARPGROUP\.DEPBAR\.LE gsb0, 0x([0-9a-f]+)/;
const LEADS_ELSEWHERE = /^(?:BRX|CALL|JM[PX]|RET)\b/;
const REGISTER = /^R(\d+)\b/;
const PREDICATE = /^!?U?P(?:\d|T)$/;
// Their registers are read, or they write predicates alone.
const WRITES_NO_REGISTER = /^(?:BAR|FCHK|NANOSLEEP|WARPSYNC|PLOP3|R2P|[A-Z]+SETP)/;

/** Of each kernel of cuobjdump's text, how many products it has, and the instructions that touch their registers. */
function check(sass) {
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
    numProducts += instructions.filter(({ code }) => PRODUCT.test(code)).length;
    for (const { address, code } of faultsIn(instructions)) found.push({ kernel, address, code });
  }
  return { numProducts, found };
}

/** Goes from each product with nothing else under way, and so finds what is touched before the wait for it. */
function faultsIn(instructions) {
  const places = new Map(instructions.map(({ address }, place) => [address, place]));
  const found = new Map();
  const seen = new Set();
  // `groups` of products under way, oldest first, and those that no group has closed: what they use, as used() has it.
  const ways = instructions.flatMap(({ code }, place) => (PRODUCT.test(code) ? [{ place, groups: [], open: [] }] : []));
  while (ways.length > 0) {
    const { place, groups, open } = ways.pop();
    const key = `${place}:${groups.join('|')}:${open.join()}`;
    const instruction = instructions[place];
    if (instruction === undefined || seen.has(key)) continue;
    seen.add(key);
    const { address, code, predicated } = instruction;
    if (isFault(code, [...groups, open].flat())) found.set(address, { address, code });
    let after = { groups, open };
    const wait = WAIT.exec(code);
    if (PRODUCT.test(code)) {
      const uses = union(open, used(code));
      after = code.includes('gsb0') ? { groups: withGroup(groups, uses), open: [] } : { groups, open: uses };
    } else if (wait && !predicated) {
      const left = parseInt(wait[1], 16);
      after = { groups: left === 0 ? [] : groups.slice(-left), open };
    }
    // Under a predicate a product may begin or not, so that fewer groups are younger than another.
    const states = predicated && PRODUCT.test(code) ? [after, { groups, open }] : [after];
    for (const state of states) {
      if (state.groups.length === 0 && state.open.length === 0) continue;
      for (const next of placesAfter(instruction, place, places)) ways.push({ place: next, ...state });
    }
  }
  return [...found.values()].sort((a, b) => a.address - b.address);
}

/** No wait leaves more than seven groups under way, so older ones, in a loop without a wait, count as one. */
function withGroup(groups, group) {
  const all = [...groups, group];
  return all.length <= 8 ? all : [union(all[0], all[1]), ...all.slice(2)];
}

function union(a, b) {
  return [...new Set([...a, ...b])].sort();
}

/** Where an instruction may lead. */
function placesAfter({ code, predicated }, place, places) {
  if (/^EXIT\b/.test(code)) return predicated ? [place + 1] : [];
  if (LEADS_ELSEWHERE.test(code)) return [];
  const target = /^BRA\b.*\b0x([0-9a-f]+)$/.exec(code)?.[1];
  if (target === undefined) return [place + 1];
  const to = places.get(parseInt(target, 16));
  const always = !predicated && /^BRA(?:\.\w+)* 0x/.test(code);
  return [...(to === undefined ? [] : [to]), ...(always ? [] : [place + 1])];
}

/** What a product uses: its sums as `first+count`, and each register that it reads besides. */
function used(code) {
  const { first, count } = sumsOf(code);
  return [`${first}+${count}`, ...registersRead(code).map(String)];
}

/** Whether an instruction does what it must not beside products that use this. */
function isFault(code, uses) {
  if (uses.length === 0) return false;
  if (LEADS_ELSEWHERE.test(code)) return true;
  const isProduct = PRODUCT.test(code);
  const sums = isProduct ? sumsOf(code) : undefined;
  const written = isProduct ? range(sums.first, sums.count) : registersWritten(code);
  const touched = isProduct ? [...written, ...registersRead(code)] : [...written, ...registersNamed(code)];
  return uses.some((use) => {
    const [first, count] = use.split('+').map(Number);
    if (count === undefined) return written.includes(first);
    // Products with the same sums wait for each other.
    const others = sums?.first === first && sums.count === count ? registersRead(code) : touched;
    return others.some((each) => each >= first && each < first + count);
  });
}

function range(first, count) {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** Of 64 rows by so many columns, a half of a column's in each of 128 threads; float16 two a register. */
function sumsOf(code) {
  const [, columns, type] = /^\w+(?:\.SP)?\.64x(\d+)x\d+\.(\w+)/.exec(code);
  const [, first] = REGISTER.exec(operandsOf(code)[0]);
  return { first: Number(first), count: Number(columns) / (type === 'F16' ? 4 : 2) };
}

/** A product's left operand, four registers, and a sparse one's metadata. */
function registersRead(code) {
  const [sums, left, ...others] = operandsOf(code);
  const first = REGISTER.exec(left);
  const read = first ? range(Number(first[1]), 4) : [];
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
  if (/^DMMA/.test(operation)) count = 8;
  else if (/\.128\b|^LDSM.*\.4$|^[A-Z]MMA/.test(operation)) count = 4;
  else if (/\.64\b|\.WIDE\b|^LDSM.*\.2$|^CS2R$|^D[A-Z]+\b|^F2I.*\.[US]64\b/.test(operation)) count = 2;
  else if (/^(?:F2F|FRND|I2F)(?:\.FTZ)?\.F64\b/.test(operation)) count = 2;
  return range(Number(register[1]), count);
}

/** At least those that an instruction reads: those that it names, and of wide operands the ones beside them. */
function registersNamed(code) {
  const operation = code.split(' ', 1)[0];
  let wide = 1;
  if (/\.128\b|^STSM.*\.4$|^[A-Z]MMA/.test(operation)) wide = 4;
  else if (/[.FSU]64\b|\.WIDE\b|^STSM.*\.2$|^D[A-Z]+\b/.test(operation)) wide = 2;
  return operandsOf(code).flatMap((operand) =>
    [...operand.matchAll(/\bR(\d+)(\.64)?/g)].flatMap(([, first, isAddress]) =>
      range(Number(first), isAddress ? 2 : operand.includes('[') ? 1 : wide),
    ),
  );
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
  let without = 0;
  for (const object of objects) {
    const { output } = await run('cuobjdump', ['-sass', object], { capture: true });
    const { numProducts, found } = check(output);
    products += numProducts;
    failures += found.length;
    for (const { kernel, address, code } of found) console.log(`${kernel}: ${address.toString(16)}: ${code}`);
    if (numProducts > 0) continue;
    without += 1;
    console.log(`${object}: no products`);
  }
  console.log(`${objects.length} objects, ${products} products, ${failures} faults while they are under way`);
  return failures > 0 || without > 0 ? 1 : 0;
});
