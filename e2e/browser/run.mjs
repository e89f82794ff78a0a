// node run.mjs FILE CHECK: runs one check of FILE.mjs, or lists their names with --list.
//
// MARQUEE_ADDRESS is the service, MARQUEE_CHROMIUM the browser. Exit code 0: passed. The tests in
// e2e/tests/browser*.rs call this; a check is an exported function that takes a Harness.

const [file, name] = process.argv.slice(2);
const checks = await import(`./${file}.mjs`);
if (name === "--list") {
  console.log(Object.keys(checks).join("\n"));
} else {
  const { Harness } = await import("./harness.mjs");
  const harness = new Harness(process.env.MARQUEE_ADDRESS, process.env.MARQUEE_CHROMIUM);
  try {
    if (["script", "delivery"].includes(file)) await harness.serveSite();
    await checks[name](harness);
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  } finally {
    await harness.close();
  }
}
