package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// source is one file of the package.
type source struct {
	path string
	text []byte
}

// mutant is a file with one change: text[from:to] replaced.
type mutant struct {
	file     *source
	line     int
	from, to int
	with     string
}

// source returns the text of the changed file.
func (m *mutant) source() []byte {
	return slices.Concat(m.file.text[:m.from], []byte(m.with), m.file.text[m.to:])
}

// String is one line: where the change is, and what it changes.
func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d: %s → %s", filepath.Base(m.file.path), m.line, brief(m.file.text[m.from:m.to]), brief([]byte(m.with)))
}

// isAt reports whether the change is at FILE or FILE:LINE.
func (m *mutant) isAt(where string) bool {
	name, line, ok := strings.Cut(where, ":")
	return name == filepath.Base(m.file.path) && (!ok || line == strconv.Itoa(m.line))
}

func brief(text []byte) string {
	words := strings.Join(strings.Fields(string(text)), " ")
	if words == "" {
		return "nothing"
	}
	if r := []rune(words); len(r) > 60 {
		words = string(r[:60]) + "…"
	}
	return "`" + words + "`"
}

// swapped says what takes an operator's place: its neighbour at a boundary, its
// opposite, or what a slip of the hand would write.
var swapped = map[token.Token][]token.Token{
	token.LSS: {token.LEQ}, token.LEQ: {token.LSS},
	token.GTR: {token.GEQ}, token.GEQ: {token.GTR},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD: {token.SUB}, token.SUB: {token.ADD},
	token.MUL: {token.QUO}, token.QUO: {token.MUL}, token.REM: {token.QUO},
	token.SHL: {token.SHR}, token.SHR: {token.SHL},
	token.AND: {token.OR}, token.OR: {token.AND}, token.XOR: {token.AND}, token.AND_NOT: {token.AND},
	token.ADD_ASSIGN: {token.SUB_ASSIGN, token.ASSIGN}, token.SUB_ASSIGN: {token.ADD_ASSIGN},
	token.OR_ASSIGN: {token.AND_ASSIGN}, token.AND_ASSIGN: {token.OR_ASSIGN},
	token.INC: {token.DEC}, token.DEC: {token.INC},
}

// mutants returns every change of f that this program knows.
func mutants(f *source) ([]mutant, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, f.path, f.text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	w := walker{file: f, set: set}
	ast.Inspect(tree, w.visit)
	return w.found, nil
}

type walker struct {
	file  *source
	set   *token.FileSet
	found []mutant
}

func (w *walker) offset(p token.Pos) int { return w.set.Position(p).Offset }

// add notes the change of what stands from one position to another.
func (w *walker) add(from, to token.Pos, with string) {
	w.found = append(w.found, mutant{
		file: w.file, line: w.set.Position(from).Line, from: w.offset(from), to: w.offset(to), with: with,
	})
}

func (w *walker) text(n ast.Node) string {
	return string(w.file.text[w.offset(n.Pos()):w.offset(n.End())])
}

func (w *walker) swap(at token.Pos, op token.Token) {
	for _, by := range swapped[op] {
		w.add(at, at+token.Pos(len(op.String())), by.String())
	}
}

// negate turns a condition round. That of a comparison is the operator's own change,
// unless that one moves a boundary.
func (w *walker) negate(cond ast.Expr) {
	if b, ok := cond.(*ast.BinaryExpr); ok && (b.Op == token.EQL || b.Op == token.NEQ) {
		return
	}
	if cond != nil {
		w.add(cond.Pos(), cond.End(), "!("+w.text(cond)+")")
	}
}

func (w *walker) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok == token.CONST || n.Tok == token.VAR
	case *ast.FuncDecl:
		if n.Body != nil && n.Type.Results == nil && len(n.Body.List) > 1 {
			w.add(n.Body.List[0].Pos(), n.Body.List[len(n.Body.List)-1].End(), "")
		}
	case *ast.FuncType, *ast.ArrayType, *ast.StructType:
		return false // a size is part of a type
	case *ast.IfStmt:
		w.negate(n.Cond)
	case *ast.ForStmt:
		w.negate(n.Cond)
	case *ast.CaseClause:
		for _, e := range n.List {
			if b, ok := e.(*ast.BinaryExpr); ok && b.Op != token.OR {
				w.negate(e)
			}
		}
		w.removeIn(n.Body)
	case *ast.CommClause:
		w.removeIn(n.Body)
	case *ast.BlockStmt:
		w.removeIn(n.List)
	case *ast.BinaryExpr:
		w.swap(n.OpPos, n.Op)
	case *ast.AssignStmt:
		w.swap(n.TokPos, n.Tok)
	case *ast.IncDecStmt:
		w.swap(n.TokPos, n.Tok)
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			w.add(n.OpPos, n.X.Pos(), "")
		}
	case *ast.BasicLit:
		if n.Kind == token.INT {
			w.add(n.Pos(), n.End(), "("+n.Value+"+1)")
		}
	case *ast.Ident:
		switch n.Name {
		case "true":
			w.add(n.Pos(), n.End(), "false")
		case "false":
			w.add(n.Pos(), n.End(), "true")
		}
	case *ast.CallExpr:
		switch name := w.text(n.Fun); name {
		case "min":
			w.add(n.Fun.Pos(), n.Fun.End(), "max")
		case "max":
			w.add(n.Fun.Pos(), n.Fun.End(), "min")
		case "fmt.Errorf", "errors.New":
			return false
		case "make":
			if len(n.Args) == 3 {
				ast.Inspect(n.Args[1], w.visit)
				return false
			}
		}
		return !isLog(n)
	}
	return true
}

// isLog reports whether a call only writes to a log.
func isLog(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	var logger string
	switch x := f.X.(type) {
	case *ast.Ident:
		logger = x.Name
	case *ast.SelectorExpr:
		logger = x.Sel.Name
	case *ast.CallExpr: // host.Log().Info(…), log.With(…).Info(…)
		if s, ok := x.Fun.(*ast.SelectorExpr); ok {
			return s.Sel.Name == "Log" || isLog(x)
		}
	}
	switch logger {
	case "log", "slog", "logger", "Log":
		return true
	}
	return false
}

// removeIn takes out each statement of a list that can go without another.
func (w *walker) removeIn(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.AssignStmt:
			switch {
			case s.Tok == token.DEFINE, w.text(s.Lhs[0]) == "_":
			case s.Tok == token.ASSIGN && w.text(s.Rhs[0]) != "nil":
				// What is on the right stays in use.
				w.add(s.Pos(), s.TokPos, strings.Repeat("_, ", len(s.Lhs)-1)+"_ ")
			default:
				w.add(s.Pos(), s.End(), "")
			}
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); !ok || !isLog(call) {
				w.add(s.Pos(), s.End(), "")
			}
		case *ast.SendStmt, *ast.IncDecStmt, *ast.DeferStmt, *ast.GoStmt:
			w.add(s.Pos(), s.End(), "")
		case *ast.BranchStmt:
			w.add(s.Pos(), s.End(), "")
		case *ast.ReturnStmt:
			if len(s.Results) == 0 {
				w.add(s.Pos(), s.End(), "")
			}
		}
	}
}
