/** Tensors of a checkpoint in memory, to be changed and written again. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export interface StoredTensor {
  dtype: string;
  shape: number[];
  data: Buffer;
}

export type Tensors = Map<string, StoredTensor>;

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** All tensors of a checkpoint folder, from one file or from its shards. */
export function readTensors(folder: string): Tensors {
  const index = path.join(folder, 'model.safetensors.index.json');
  if (!existsSync(index)) return readFile(path.join(folder, 'model.safetensors'));
  const { weight_map: shards } = JSON.parse(readFileSync(index, 'utf8')) as { weight_map: Record<string, string> };
  const files = [...new Set(Object.values(shards))];
  return new Map(files.flatMap((file) => [...readFile(path.join(folder, file))]));
}

function readFile(file: string): Tensors {
  const bytes = readFileSync(file);
  const begin = 8 + Number(bytes.readBigUInt64LE(0));
  const { __metadata__: _, ...header } = JSON.parse(bytes.subarray(8, begin).toString()) as Header;
  return new Map(
    Object.entries(header).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [first, end],
        },
      ]) => [name, { dtype, shape, data: bytes.subarray(begin + first, begin + end) }],
    ),
  );
}

/** Writes model.safetensors. */
export function writeTensors(folder: string, tensors: Tensors): void {
  let end = 0;
  const header: Header = {};
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.length] };
    end += data.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const data = [...tensors.values()].map((tensor) => tensor.data);
  writeFileSync(path.join(folder, 'model.safetensors'), Buffer.concat([length, text, ...data]));
}
