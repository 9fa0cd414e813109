import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import {
  cycles,
  type LayerTable,
  libraryViolations,
  nativeViolations,
  reachable,
  type SourceTree,
} from '../helpers/layering';

/** `csrc/`: what stands right of a folder, and everything right of that. `core` is listed where it may be used. */
const NATIVE_LAYERS: LayerTable = {
  napi: ['engine', 'compress'],
  compress: ['models', 'kvcache', 'loader', 'comm'],
  engine: ['scheduler', 'executor', 'text'],
  executor: ['worker'],
  worker: ['models', 'sampler', 'kvcache', 'loader', 'comm'],
  models: ['layers', 'core'],
  layers: ['ops', 'comm', 'kvcache', 'loader'],
  sampler: ['ops', 'core'],
  // The view of a cache that the attention op reads is declared by the op.
  kvcache: ['ops'],
  loader: ['tensor'],
  comm: ['tensor'],
  ops: ['tensor'],
  tensor: ['device'],
  device: ['base'],
  scheduler: ['core'],
  text: ['core'],
  core: ['base'],
  base: [],
};

/** `lib/`: a folder, or a file that stands directly in `lib/`. */
const LIBRARY_LAYERS: LayerTable = {
  cli: ['index', 'bench'],
  bench: ['index'],
  server: ['index'],
  index: ['compress'],
  compress: ['engine'],
  engine: ['native', 'config', 'tokenizer', 'streaming', 'metrics'],
  native: ['errors'],
  config: ['errors'],
  tokenizer: ['errors'],
  streaming: ['errors'],
  metrics: ['errors'],
  errors: [],
};

const root = path.resolve(__dirname, '../..');

function readTree(...folders: string[]): SourceTree {
  const files = folders.flatMap((folder) => {
    try {
      return readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true });
    } catch {
      return []; // Not every checkout has every folder.
    }
  });
  return new Map(
    files
      .filter((entry) => entry.isFile() && /\.(h|cc|inl|cu|cuh|ts)$/.test(entry.name))
      .map((entry) => path.join(entry.parentPath, entry.name))
      .map((file) => [path.relative(root, file).split(path.sep).join('/'), readFileSync(file, 'utf8')]),
  );
}

describe('the repository', () => {
  const native = readTree('csrc', 'cuda');
  const library = readTree('lib');

  it('includes only what stands right of a folder in csrc/', () => {
    expect(native.size).toBeGreaterThan(60);
    expect(nativeViolations(native, NATIVE_LAYERS)).toEqual([]);
  });

  it('imports only what stands right of a folder in lib/', () => {
    expect(library.size).toBeGreaterThan(10);
    expect(libraryViolations(library, LIBRARY_LAYERS)).toEqual([]);
  });

  it('has files in every folder of csrc/ that the table names', () => {
    const folders = new Set(
      [...native.keys()].filter((file) => file.startsWith('csrc/')).map((file) => file.split('/')[1]),
    );
    expect([...folders].sort()).toEqual(Object.keys(NATIVE_LAYERS).sort());
  });
});

describe('the tables', () => {
  it('have no cycle', () => {
    expect(cycles(NATIVE_LAYERS)).toEqual([]);
    expect(cycles(LIBRARY_LAYERS)).toEqual([]);
  });

  it('name only folders that they define', () => {
    for (const table of [NATIVE_LAYERS, LIBRARY_LAYERS]) {
      expect(
        Object.values(table)
          .flat()
          .filter((layer) => !Object.hasOwn(table, layer)),
      ).toEqual([]);
    }
  });

  it('keep the scheduler on core and base, and layers away from core', () => {
    expect([...reachable('scheduler', NATIVE_LAYERS)].sort()).toEqual(['base', 'core', 'scheduler']);
    expect(reachable('layers', NATIVE_LAYERS)).not.toContain('core');
  });

  it('keep everything but the engine away from the native module', () => {
    for (const layer of ['config', 'tokenizer', 'streaming', 'errors', 'metrics']) {
      expect(reachable(layer, LIBRARY_LAYERS)).not.toContain('native');
    }
  });
});

describe('the check of includes', () => {
  const tree = (file: string, text: string): SourceTree =>
    new Map([
      ['csrc/base/error.h', ''],
      ['csrc/core/request.h', ''],
      ['csrc/models/llama.h', ''],
      ['csrc/ops/ops.h', ''],
      ['cuda/include/gemm.h', ''],
      ['cuda/common/vec.cuh', ''],
      [file, text],
    ]);

  it.each([
    ['an edge to the left', 'csrc/ops/a.cc', '#include "models/llama.h"', 'ops may not depend on models'],
    ['core below the models', 'csrc/layers/a.cc', '#include "core/request.h"', 'layers may not depend on core'],
    ['ops in the scheduler', 'csrc/scheduler/a.cc', ' #  include "ops/ops.h"', 'scheduler may not depend on ops'],
    ['a path through ..', 'csrc/base/a.h', '#include "../core/request.h"', 'base may not depend on core'],
    ['a file that is not there', 'csrc/ops/a.cc', '#include "ops/none.h"', 'no such file'],
    ['a folder that the table lacks', 'csrc/utils/a.h', '', 'unknown folder utils'],
    ['csrc in cuda', 'cuda/kernels/a.cu', '#include "base/error.h"', 'cuda/ includes nothing from csrc/'],
    [
      'cuda in the wrong place',
      'csrc/layers/a.cc',
      '#include "gemm.h"',
      'only device/cuda_*, ops/cuda/*.cc and comm/{nccl,peer}_*',
    ],
    [
      'cuda in a header',
      'csrc/ops/a.h',
      '#include "gemm.h"',
      'only device/cuda_*, ops/cuda/*.cc and comm/{nccl,peer}_*',
    ],
    [
      'internals of cuda',
      'csrc/ops/a.cc',
      '#include "common/vec.cuh"',
      'only device/cuda_*, ops/cuda/*.cc and comm/{nccl,peer}_*',
    ],
    ['Node outside napi', 'csrc/engine/a.h', '#include <napi.h>', 'only napi/ knows Node'],
  ])('refuses %s', (_, file, text, message) => {
    const violations = nativeViolations(tree(file, text), NATIVE_LAYERS);
    expect(violations).toHaveLength(1);
    expect(violations[0]).toContain(message);
  });

  it.each([
    ['csrc/models/a.cc', '#include "base/error.h"\n#include "core/request.h"\n#include <vector>'],
    ['csrc/device/cuda_a.h', '#include "gemm.h"'],
    ['csrc/ops/cuda/a.cc', '#include "gemm.h"'],
    ['csrc/comm/nccl_communicator.cc', '#include "gemm.h"'],
    ['csrc/comm/peer_communicator.cc', '#include "gemm.h"'],
    ['csrc/napi/a.cc', '#include <napi.h>\n#include "core/request.h"'],
    ['cuda/kernels/a.cu', '#include "common/vec.cuh"\n#include "gemm.h"'],
  ])('accepts %s', (file, text) => expect(nativeViolations(tree(file, text), NATIVE_LAYERS)).toEqual([]));
});

describe('the check of imports', () => {
  const check = (file: string, text: string): string[] => libraryViolations(new Map([[file, text]]), LIBRARY_LAYERS);

  it.each([
    [
      'native in config',
      'lib/config/a.ts',
      "import { x } from '../native/addon';",
      'only the engine and compress/ know native/',
    ],
    [
      'a type of it too',
      'lib/errors.ts',
      "import type { X } from './native';",
      'only the engine and compress/ know native/',
    ],
    [
      'native in cli',
      'lib/cli/a.ts',
      "import { x } from '../native/addon';",
      'only the engine and compress/ know native/',
    ],
    ['a dynamic import', 'lib/streaming/a.ts', "await import('../engine');", 'streaming may not depend on engine'],
    [
      'require',
      'lib/metrics/a.ts',
      "const x = require('../native/addon');",
      'only the engine and compress/ know native/',
    ],
    ['a re-export', 'lib/tokenizer/a.ts', "export * from '../config/a';", 'tokenizer may not depend on config'],
    ['the addon itself', 'lib/cli/a.ts', "import bindings from 'bindings';", 'only native/ loads the native module'],
    ['its types', 'lib/config/a.ts', "import type { X } from '../../types/addon';", "the native module's types"],
    ['files outside', 'lib/cli/a.ts', "import x from '../../test/helpers/x';", 'only lib/ and types/'],
    ['a folder that the table lacks', 'lib/utils/a.ts', '', 'unknown layer utils'],
  ])('refuses %s', (_, file, text, message) => {
    const violations = check(file, text);
    expect(violations).toHaveLength(1);
    expect(violations[0]).toContain(message);
  });

  it.each([
    ['lib/index.ts', "export { Engine } from './engine';\nexport type * from '../types';"],
    ['lib/engine.ts', "import { load } from './native/addon';\nimport fs from 'node:fs';"],
    ['lib/engine-stats.ts', "import type { NativeStats } from '../types/addon';"],
    ['lib/cli/main.ts', "import { Engine } from '..';\nimport { a } from './a';"],
  ])('accepts %s', (file, text) => expect(check(file, text)).toEqual([]));
});
