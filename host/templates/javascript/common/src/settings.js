import environment from "wasi:cli/environment@0.2.12";

/**
 * A setting, which arrives as an environment variable. Call this while a call is answered, not at
 * the top of a file: that runs when the plugin is built, where there are no settings.
 */
export function setting(name, fallback) {
  for (const [key, value] of environment.getEnvironment()) {
    if (key === name) return value;
  }
  return fallback;
}
