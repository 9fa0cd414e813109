/**
 * The compiled module (csrc/), loaded when first needed: importing the package touches no native code.
 *
 * @module
 */
import path from 'node:path';

import bindings from 'bindings';

import type * as addon from '../../types/addon';
import { HeddleError } from '../errors';

export type * from '../../types/addon';

/** What the compiled module exports. */
export type Binding = typeof addon;

let binding: Binding | undefined;

/** @throws HeddleError `ERR_NATIVE_MODULE`, with advice, when the module is missing or does not fit this Node. */
export function loadBinding(): Binding {
  try {
    // Also right in dist/native/, whose depth is the same.
    binding ??= bindings({ bindings: 'heddle', module_root: path.resolve(__dirname, '../..') }) as Binding;
    return binding;
  } catch (cause) {
    throw new HeddleError(
      'ERR_NATIVE_MODULE',
      `the compiled part of heddle could not be loaded for Node ${process.version} on ${process.platform}-${process.arch}; ` +
        'run "npm rebuild heddle" (or "npm run build:native" in the repository), which needs g++, make and python3',
      { cause },
    );
  }
}
