/** What a declaration file says that a module exports at run time. */
import ts from 'typescript';

export interface DeclaredClass {
  /** Methods, accessors and properties of instances. */
  members: string[];
  staticMembers: string[];
}

export interface DeclaredExports {
  functions: string[];
  constants: string[];
  classes: Record<string, DeclaredClass>;
}

const has = (node: ts.HasModifiers, kind: ts.SyntaxKind): boolean =>
  ts.getModifiers(node)?.some((modifier) => modifier.kind === kind) ?? false;

/** Reads exported functions, constants and classes of a `.d.ts` file; types and interfaces do not exist at run time. */
export function declaredExports(text: string): DeclaredExports {
  const found: DeclaredExports = { functions: [], constants: [], classes: {} };
  for (const node of ts.createSourceFile('declarations.d.ts', text, ts.ScriptTarget.Latest, true).statements) {
    if (!ts.canHaveModifiers(node) || !has(node, ts.SyntaxKind.ExportKeyword)) continue;
    if (ts.isFunctionDeclaration(node)) {
      found.functions.push(node.name!.text);
    } else if (ts.isVariableStatement(node)) {
      found.constants.push(...node.declarationList.declarations.map((declaration) => declaration.name.getText()));
    } else if (ts.isClassDeclaration(node)) {
      found.classes[node.name!.text] = declaredClass(node);
    } else if (!ts.isInterfaceDeclaration(node) && !ts.isTypeAliasDeclaration(node)) {
      throw new Error(`an export that this reader does not know: ${node.getText()}`);
    }
  }
  found.functions = [...new Set(found.functions)]; // Overloads.
  return found;
}

function declaredClass(node: ts.ClassDeclaration): DeclaredClass {
  const names = (wantStatic: boolean): string[] => {
    const members = node.members.filter(
      (member) =>
        (ts.isMethodDeclaration(member) || ts.isPropertyDeclaration(member) || ts.isAccessor(member)) &&
        has(member, ts.SyntaxKind.StaticKeyword) === wantStatic,
    );
    return [...new Set(members.map((member) => member.name!.getText()))];
  };
  return { members: names(false), staticMembers: names(true) };
}
