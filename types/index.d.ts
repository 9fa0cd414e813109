/**
 * Types of the public API.
 *
 * @module
 */
export type * from './compression';
export type * from './options';
export type * from './outputs';
