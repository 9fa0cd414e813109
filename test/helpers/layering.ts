/** Checks `#include` and `import` lines against a table of who may depend on whom. */
import path from 'node:path';
import ts from 'typescript';

/** Path from the repository's root, with forward slashes, to content. */
export type SourceTree = ReadonlyMap<string, string>;

/** Folder to folders it may depend on directly; what those may depend on follows. */
export type LayerTable = Readonly<Record<string, readonly string[]>>;

/** Folders that a layer may use: those of the table and, through them, theirs. */
export function reachable(layer: string, table: LayerTable): Set<string> {
  const found = new Set<string>([layer]);
  for (const current of found) for (const next of table[current] ?? []) found.add(next);
  return found;
}

/** Folders on a cycle of a table. */
export function cycles(table: LayerTable): string[] {
  return Object.keys(table).filter((layer) => table[layer]!.some((next) => reachable(next, table).has(layer)));
}

/** One sentence for each line of `csrc/` and `cuda/` that points the wrong way. */
export function nativeViolations(tree: SourceTree, table: LayerTable): string[] {
  const violations: string[] = [];
  for (const [file, text] of tree) {
    if (!/^(csrc|cuda)\/.*\.(h|cc|inl|cu|cuh)$/.test(file)) continue;
    for (const [, quote, name] of text.matchAll(/^\s*#\s*include\s*(["<])([^">]+)[">]/gm)) {
      const fault = quote === '<' ? systemIncludeFault(file, name!) : includeFault(file, name!, tree, table);
      if (fault) violations.push(`${file} includes ${name!}: ${fault}`);
    }
    const folder = file.split('/')[1]!;
    if (file.startsWith('csrc/') && !Object.hasOwn(table, folder)) violations.push(`${file}: unknown folder ${folder}`);
  }
  return violations;
}

function includeFault(file: string, name: string, tree: SourceTree, table: LayerTable): string | undefined {
  // As the compiler looks: each side first among its own, since both have a comm/communicator.h.
  const inCuda = [`cuda/include/${name}`, `cuda/${name}`];
  const elsewhere = file.startsWith('cuda/') ? [...inCuda, `csrc/${name}`] : [`csrc/${name}`, ...inCuda];
  const places = [path.posix.join(path.posix.dirname(file), name), ...elsewhere];
  const target = places.find((place) => tree.has(place));
  if (target === undefined) return 'no such file';
  if (file.startsWith('cuda/')) return target.startsWith('cuda/') ? undefined : 'cuda/ includes nothing from csrc/';
  if (target.startsWith('cuda/')) {
    const allowed =
      target.startsWith('cuda/include/') &&
      /^csrc\/(device\/cuda_[^/]*|ops\/cuda\/.*\.cc|comm\/(nccl|peer)_[^/]*)$/.test(file);
    return allowed ? undefined : 'only device/cuda_*, ops/cuda/*.cc and comm/{nccl,peer}_* may include cuda/include/';
  }
  const [from, to] = [file.split('/')[1]!, target.split('/')[1]!];
  return reachable(from, table).has(to) ? undefined : `${from} may not depend on ${to}`;
}

function systemIncludeFault(file: string, name: string): string | undefined {
  const isNode = /^(napi|node_api|js_native_api|uv|v8|node)(-inl)?(\.h|\/)/.test(name);
  return isNode && !file.startsWith('csrc/napi/') ? 'only napi/ knows Node' : undefined;
}

/** One sentence for each import of `lib/` that points the wrong way. */
export function libraryViolations(tree: SourceTree, table: LayerTable): string[] {
  const violations: string[] = [];
  for (const [file, text] of tree) {
    if (!/^lib\/.*\.ts$/.test(file)) continue;
    const from = libraryLayer(file);
    if (!Object.hasOwn(table, from)) violations.push(`${file}: unknown layer ${from}`);
    for (const { fileName } of ts.preProcessFile(text, true, true).importedFiles) {
      const fault = importFault(from, file, fileName, table);
      if (fault) violations.push(`${file} imports ${fileName}: ${fault}`);
    }
  }
  return violations;
}

/** Layers of `lib/` that call the native module. */
const NATIVE_CALLERS = new Set(['native', 'engine', 'compress']);

function importFault(from: string, file: string, name: string, table: LayerTable): string | undefined {
  if (!name.startsWith('.')) {
    return name === 'bindings' && from !== 'native' ? 'only native/ loads the native module' : undefined;
  }
  const target = path.posix.join(path.posix.dirname(file), name);
  if (/^types\/addon(\.d)?(\.ts)?$/.test(target)) {
    return NATIVE_CALLERS.has(from) ? undefined : `${from} may not know the native module's types`;
  }
  if (target === 'types' || target.startsWith('types/') || target === 'package.json') return undefined;
  if (!target.startsWith('lib/') && target !== 'lib') return 'only lib/ and types/ are part of the library';
  const to = libraryLayer(target);
  if (to === 'native' && !NATIVE_CALLERS.has(from)) return 'only the engine and compress/ know native/';
  return reachable(from, table).has(to) ? undefined : `${from} may not depend on ${to}`;
}

/** `lib/engine.ts` and `lib/engine-stats.ts` are the layer engine, as `lib/engine/x.ts` would be. */
function libraryLayer(file: string): string {
  const [, first = 'index'] = file.replace(/\.ts$/, '').split('/');
  return first.startsWith('engine') ? 'engine' : first;
}
