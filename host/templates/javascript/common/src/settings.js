import environment from "wasi:cli/environment@0.2.12";

/**
 * Returns a setting, which is an environment variable. Call this during a call, not at the top of a
 * file: code at the top runs when the plugin is built, without settings.
 */
export function setting(name, fallback) {
  for (const [key, value] of environment.getEnvironment()) {
    if (key === name) return value;
  }
  return fallback;
}
