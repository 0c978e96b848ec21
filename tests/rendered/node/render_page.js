// Compiles ItemDetails.vue, checks all types strictly, and prints what it shows of each answer.
//
//     node render_page.js FOLDER < answers.json
//
// FOLDER holds the rendered files, use.ts, and a node_modules. Exits 1 with what a tool has to say.
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const { createRequire } = require("node:module");
const path = require("node:path");

const folder = path.resolve(process.argv[2]);
const take = createRequire(path.join(folder, "package.json"));
const { compileScript, parse } = take("vue/compiler-sfc");
const typescript = take("typescript");

function fail(said) {
  console.error(said);
  process.exit(1);
}

const page = "ItemDetails.vue";
const { descriptor, errors } = parse(fs.readFileSync(path.join(folder, page), "utf8"), {
  filename: page,
});
const { content, warnings } = compileScript(descriptor, { id: page, inlineTemplate: true });
const said = [...errors, ...(warnings ?? [])].map(String);
if (said.length) fail(said.join("\n"));

const compilerOptions = {
  strict: true,
  noEmit: true,
  module: "esnext",
  moduleResolution: "bundler",
  target: "es2022",
  types: [],
  skipLibCheck: true, // Vue's own declarations are not what is checked
};
const configuration = { compilerOptions, files: ["types.ts", "use.ts", page] };
fs.writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(configuration));
const checker = path.join(path.dirname(take.resolve("vue-tsc/package.json")), "bin", "vue-tsc.js");
try {
  execFileSync(process.execPath, [checker, "--project", folder], { cwd: folder });
} catch (error) {
  fail(`${error.stdout}${error.stderr}`);
}

const written = { "types.js": fs.readFileSync(path.join(folder, "types.ts"), "utf8") };
written["page.js"] = content;
for (const [name, source] of Object.entries(written)) {
  const module = typescript.ModuleKind.CommonJS;
  const { outputText } = typescript.transpileModule(source, { compilerOptions: { module } });
  fs.writeFileSync(path.join(folder, name), outputText);
}
const { createSSRApp } = take("vue");
const { renderToString } = take("vue/server-renderer");
const component = take(path.join(folder, "page.js")).default;
const answers = JSON.parse(fs.readFileSync(0, "utf8"));
Promise.all(answers.map((answer) => renderToString(createSSRApp(component, { answer })))).then(
  (pages) => console.log(JSON.stringify(pages)),
);
