// Errors that people read: what happened, and what to do next.

/** @typedef {"input" | "engine" | "proof" | "host"} Branch */

/** An error with a sentence for the page. `branch` is a branch of edge's error tree, which decides the exit code. */
export class UserError extends Error {
  /**
   * @param {Branch} branch
   * @param {string} message
   * @param {string} [hint]
   */
  constructor(branch, message, hint = "") {
    super(message);
    this.branch = branch;
    this.hint = hint;
  }
}

/** The WebGPU device was lost during an inference. */
export class DeviceLostError extends UserError {
  /** @param {string} reason */
  constructor(reason) {
    super("engine", `The WebGPU device was lost${reason ? ` (${reason})` : ""}.`, "Reload the page.");
  }
}

/**
 * Turn anything thrown into a UserError.
 * @param {any} error
 * @param {string} what
 */
export function asUserError(error, what) {
  if (error instanceof UserError) return error;
  const text = String(error?.message ?? error).split("\n")[0].slice(0, 300);
  return new UserError("engine", `${what}: ${text}`, "Try another browser, or reload the page.");
}
