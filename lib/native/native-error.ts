/**
 * Calls into the native module, whose errors become typed ones with the stack of the caller.
 *
 * @module
 */
import { errorFromNative, type CallSite } from '../errors';

/** Makes a synchronous native call. */
export function callNative<T>(call: () => T, site: CallSite): T {
  try {
    return call();
  } catch (error) {
    throw errorFromNative(error, site);
  }
}

/** Makes a native call that returns a promise. */
export async function callNativeAsync<T>(call: () => Promise<T>, site: CallSite): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw errorFromNative(error, site);
  }
}
