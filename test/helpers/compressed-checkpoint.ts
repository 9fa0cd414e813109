/** Reads compressed-tensors as their description says, and knows nothing of how we write or load them. */
import { readdirSync, readFileSync, writeFileSync, mkdirSync, copyFileSync, existsSync } from 'node:fs';
import path from 'node:path';

interface StoredTensor {
  dtype: string;
  shape: number[];
  data: Buffer;
}

/** Every tensor of a folder's safetensors files, by name. */
export function readTensors(folder: string): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.safetensors'))) {
    const bytes = readFileSync(path.join(folder, file));
    const dataBegin = 8 + Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString('utf8', 8, dataBegin)) as Record<
      string,
      { dtype: string; shape: number[]; data_offsets: [number, number] }
    >;
    for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      const [begin, end] = data_offsets.map((offset) => dataBegin + offset) as [number, number];
      tensors.set(name, { dtype, shape, data: bytes.subarray(begin, end) });
    }
  }
  return tensors;
}

/** `config.json` of a folder. */
export function readConfig(folder: string): Record<string, unknown> & { quantization_config?: QuantizationConfig } {
  return JSON.parse(readFileSync(path.join(folder, 'config.json'), 'utf8')) as ReturnType<typeof readConfig>;
}

interface QuantizationConfig {
  format?: string;
  ignore?: string[];
  config_groups?: Record<string, { weights: { num_bits: number }; input_activations: unknown }>;
  sparsity_config: { format?: string; global_sparsity?: number };
}

/** Dense weights in float32, by name. */
export function decompress(tensors: ReadonlyMap<string, StoredTensor>): Map<string, Float32Array> {
  const dense = new Map<string, Float32Array>();
  for (const [name, tensor] of tensors) {
    const dot = name.lastIndexOf('.');
    const [prefix, part] = [name.slice(0, dot), name.slice(dot + 1)];
    if (['weight_scale', 'weight_shape', 'bitmask', 'shape'].includes(part)) continue;
    const scales = tensors.get(`${prefix}.weight_scale`);
    let values = numbers(tensor);
    let denseName = name;
    if (part === 'weight_packed')
      values = unpack(tensor, Number(tensors.get(`${prefix}.weight_shape`)!.data.readBigInt64LE(8)));
    if (part === 'compressed') values = spread(values, tensor.shape[0]!, tensors.get(`${prefix}.bitmask`)!);
    if (part === 'weight_packed' || part === 'compressed') denseName = `${prefix}.weight`;
    dense.set(denseName, scales ? scale(values, numbers(scales)) : values);
  }
  return dense;
}

/** Writes the dense checkpoint, in float32, that a compressed one stands for. */
export function writeDenseCopy(compressed: string, folder: string): void {
  const tensors = readTensors(compressed);
  const config = readConfig(compressed);
  delete config.quantization_config;
  mkdirSync(folder);
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ ...config, dtype: 'float32' }));
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json']) {
    if (existsSync(path.join(compressed, name))) copyFileSync(path.join(compressed, name), path.join(folder, name));
  }
  const dense = decompress(tensors);
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, values] of dense) {
    const begin = end;
    end += values.byteLength;
    header[name] = { dtype: 'F32', shape: shapeOf(name, values, tensors), data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const data = [...dense.values()].map((values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength));
  writeFileSync(path.join(folder, 'model.safetensors'), Buffer.concat([length, text, ...data]));
}

function shapeOf(name: string, values: Float32Array, tensors: ReadonlyMap<string, StoredTensor>): number[] {
  const prefix = name.slice(0, name.lastIndexOf('.'));
  const matrix = tensors.get(`${prefix}.weight_packed`) ?? tensors.get(`${prefix}.compressed`);
  return matrix ? [matrix.shape[0]!, values.length / matrix.shape[0]!] : tensors.get(name)!.shape;
}

/** The elements of a float or integer tensor. */
function numbers({ dtype, data }: StoredTensor): Float32Array {
  const copy = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
  switch (dtype) {
    case 'BF16':
      return bfloat16(new Uint16Array(copy));
    case 'F32':
      return new Float32Array(copy);
    case 'I8':
      return new Float32Array(new Int8Array(copy));
    case 'I32':
      return new Float32Array(new Int32Array(copy));
    default:
      throw new Error(`not read here: ${dtype}`);
  }
}

function bfloat16(values: Uint16Array): Float32Array {
  const bits = new Uint32Array(values.length);
  for (let i = 0; i < bits.length; ++i) bits[i] = values[i]! << 16;
  return new Float32Array(bits.buffer);
}

/** Four bytes of an int32 are four weights, each plus 128. */
function unpack({ shape, data }: StoredTensor, columns: number): Float32Array {
  const values = new Float32Array(shape[0]! * columns);
  for (let row = 0, i = 0; row < shape[0]!; ++row) {
    for (let column = 0; column < columns; ++column) values[i++] = data[row * 4 * shape[1]! + column]! - 128;
  }
  return values;
}

function spread(kept: Float32Array, rows: number, { shape, data: mask }: StoredTensor): Float32Array {
  const columns = (2 * kept.length) / rows;
  const values = new Float32Array(rows * columns);
  for (let row = 0, i = 0, next = 0; row < rows; ++row) {
    for (let column = 0; column < columns; ++column, ++i) {
      if ((mask[row * shape[1]! + (column >> 3)]! >> (column & 7)) & 1) values[i] = kept[next++]!;
    }
  }
  return values;
}

function scale(values: Float32Array, scales: Float32Array): Float32Array {
  const columns = values.length / scales.length;
  const scaled = new Float32Array(values.length);
  for (let i = 0; i < scaled.length; ++i) scaled[i] = values[i]! * scales[Math.floor(i / columns)]!;
  return scaled;
}

/** Whether at least two of every four neighbours are zero. */
export function isTwoOfFour(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i += 4) {
    let zeros = 0;
    for (let j = i; j < i + 4; ++j) zeros += values[j] === 0 ? 1 : 0;
    if (zeros < 2) return false;
  }
  return true;
}
