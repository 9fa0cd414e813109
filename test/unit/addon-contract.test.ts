import { readFileSync } from 'node:fs';
import path from 'node:path';

import bindings from 'bindings';

import { declaredExports } from '../helpers/declarations';

const root = path.resolve(__dirname, '../..');
const declared = declaredExports(readFileSync(path.join(root, 'types/addon.d.ts'), 'utf8'));
const addon = bindings({ bindings: 'heddle', module_root: root }) as Record<string, unknown>;

const ownNames = (value: object, ...except: string[]): string[] =>
  Object.getOwnPropertyNames(value)
    .filter((name) => !except.includes(name))
    .sort();

describe('the native module', () => {
  it('exports what types/addon.d.ts declares, and nothing else', () => {
    const names = [...declared.functions, ...declared.constants, ...Object.keys(declared.classes)];
    expect(names.length).toBeGreaterThan(0);
    // `bindings` adds the path of the file.
    expect(ownNames(addon, 'path')).toEqual(names.sort());
  });

  it.each([...declared.functions, ...Object.keys(declared.classes)])('has a function %s', (name) => {
    expect(typeof addon[name]).toBe('function');
  });

  it.each(Object.entries(declared.classes))(
    'gives %s the declared members, and no others',
    (name, { members, staticMembers }) => {
      const constructor = addon[name] as { prototype: object };
      expect(members.length).toBeGreaterThan(0);
      expect(ownNames(constructor.prototype, 'constructor')).toEqual([...members].sort());
      expect(ownNames(constructor, 'length', 'name', 'prototype', 'arguments', 'caller')).toEqual(
        [...staticMembers].sort(),
      );
    },
  );
});

describe('the reader of declarations', () => {
  it('sees functions, constants, classes and their members, and no types', () => {
    const found = declaredExports(`
      export interface Options { a: number }
      export type Name = string;
      interface Hidden { b: number }
      export const version: string;
      export function create(options: Options): Thing;
      export function create(): Thing;
      export class Thing {
        private constructor();
        static of(): Thing;
        readonly size: number;
        get name(): Name;
        set name(value: Name);
        close(): void;
      }
    `);
    expect(found).toEqual({
      functions: ['create'],
      constants: ['version'],
      classes: { Thing: { members: ['size', 'name', 'close'], staticMembers: ['of'] } },
    });
  });

  it('refuses what it does not know', () => {
    expect(() => declaredExports('export enum Colour { red }')).toThrow('does not know');
  });
});
