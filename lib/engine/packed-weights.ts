/**
 * Where an engine keeps packed weights: a folder of the caller's, and in it a name that says what they are of.
 *
 * @module
 */
import { createHash, type Hash } from 'node:crypto';
import { mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';

import type { ResolvedEngineConfig } from '../config/engine-config';
import { refuse } from '../config/validate';
import { readText } from './checkpoint';

/** Files up to this size are read whole: about as long as it takes to look at samples of a large one. */
const MAX_WHOLE_BYTES = 64 * 2 ** 20;
const STRIP_BYTES = 4096;
const STRIDE_BYTES = 4 * 2 ** 20;
/** Of strips under way; more would keep the process's other files waiting. */
const MAX_READS = 4;
/** As the native side reads them. */
const MAX_HEADER_BYTES = 100_000_000;

/** What the checkpoint's packed weights are known by; null when none are kept, or none can be read. */
export async function digestPackedWeights({ model, packedWeightCache }: ResolvedEngineConfig): Promise<string | null> {
  return packedWeightCache === null ? null : await digestCheckpoint(model);
}

/**
 * The path with which names of files of packed weights begin; `''` when none are kept. Makes the folder.
 *
 * @throws InvalidArgumentError when there is no such folder and none can be made.
 */
export async function placePackedWeights(config: ResolvedEngineConfig, digest: string | null): Promise<string> {
  const { packedWeightCache: folder } = config;
  if (folder === null || digest === null) return '';
  await makeFolder(folder);
  return path.join(folder, digest);
}

/**
 * Removes what was just written when the checkpoint is no longer what it was: its weights may have been read from either,
 * and must not serve later engines under the name of one. Never fails.
 */
export async function dropIfChanged(config: ResolvedEngineConfig, packedWeights: string): Promise<void> {
  const folder = path.dirname(packedWeights);
  const digest = path.basename(packedWeights);
  if ((await digestCheckpoint(config.model)) === digest) return;
  const names = await readdir(folder).catch(() => []);
  const written = names.filter((name) => name.startsWith(digest));
  await Promise.all(written.map((name) => rm(path.join(folder, name), { force: true }).catch(() => undefined)));
}

/** The folders above are not made: Node tries that for ever where the system does not allow it. */
async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, 0o700);
  } catch {
    const found = await stat(folder).catch(() => null);
    if (!found?.isDirectory()) refuse('packedWeightCache', 'a folder, or where one can be made', folder);
  }
}

/**
 * A hash of all that decides the packed weights of a checkpoint: `config.json`, and of each file of weights its name,
 * size, time of change, header, and contents: all of them up to 64 MiB, of larger ones 4 KiB of every 4 MiB. Null for a checkpoint that cannot be read; loading it says why.
 */
async function digestCheckpoint(folder: string): Promise<string | null> {
  try {
    const hash = createHash('sha256');
    hash.update((await readText(folder, 'config.json')) ?? '');
    for (const name of await weightFiles(folder)) await addFile(hash, path.join(folder, name));
    return hash.digest('hex');
  } catch {
    return null;
  }
}

/** The files that the native side opens. */
async function weightFiles(folder: string): Promise<string[]> {
  const single = 'model.safetensors';
  const exists = await stat(path.join(folder, single)).then(
    () => true,
    () => false,
  );
  if (exists) return [single];
  const index = await readText(folder, `${single}.index.json`);
  const { weight_map } = JSON.parse(index ?? '') as { weight_map: Record<string, string> };
  return [...new Set(Object.values(weight_map))].sort();
}

async function addFile(hash: Hash, weights: string): Promise<void> {
  // Opening a pipe might never end.
  if (!(await stat(weights)).isFile()) throw new Error('not a regular file');
  const file = await open(weights);
  try {
    const { size, mtimeNs } = await file.stat({ bigint: true });
    hash.update(JSON.stringify([path.basename(weights), `${size}`, `${mtimeNs}`]));
    const read = async (position: number, length: number): Promise<Buffer> => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
      return buffer.subarray(0, bytesRead);
    };
    const headerBytes = Number((await read(0, 8)).readBigUInt64LE());
    hash.update(await read(8, Math.min(headerBytes, MAX_HEADER_BYTES)));
    const stripBytes = size <= MAX_WHOLE_BYTES ? STRIDE_BYTES : STRIP_BYTES;
    for (let begin = 0; begin < size; begin += MAX_READS * STRIDE_BYTES) {
      const strips = Array.from({ length: MAX_READS }, (_, i) => read(begin + i * STRIDE_BYTES, stripBytes));
      for (const strip of await Promise.all(strips)) hash.update(strip);
    }
  } finally {
    await file.close();
  }
}
