package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/xrash/smetrics"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

const (
	// maxText is the longest file in bytes: some ten thousand ports.
	maxText = 4 << 20

	// maxDepth is how deep collections may stand in each other. The format needs four levels.
	maxDepth = 16

	// maxProblems is how many problems are named.
	maxProblems = 50
)

// Problem is an error at a place of a file. Lines and columns count from 1.
type Problem struct {
	Line, Column int
	Message      string
}

// Problems are all errors of a file, by line.
type Problems []Problem

// Error implements error, with a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Message)
	}
	return strings.Join(lines, "\n")
}

// Places are the places of a document's parts in its file.
type Places map[Path]Problem

// Problem returns an error about a part of the document at its place in the file. A part
// that the file does not have is at the place of the whole that it belongs to.
func (ps Places) Problem(at Path, message string) Problem {
	for {
		if p, ok := ps[at]; ok {
			p.Message = message
			return p
		}
		i := strings.LastIndexByte(string(at), '/')
		if i < 0 {
			return Problem{1, 1, message}
		}
		at = at[:i]
	}
}

// Parse reads a document from YAML or JSON. An error is a Problems with all that is wrong.
func (f Format) Parse(text []byte) (Document, Places, error) {
	p := &reader{Format: f, places: make(Places)}
	root := p.syntax(text)
	if root != nil {
		p.document(root)
	}
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return Document{}, nil, Problems(p.problems[:min(len(p.problems), maxProblems)])
	}
	return p.doc, p.places, nil
}

// reader reads one document.
type reader struct {
	Format
	doc      Document
	places   Places
	problems []Problem
}

// fail adds a problem at a token; nil is the start of the file.
func (p *reader) fail(at *token.Token, format string, args ...any) {
	problem := place(at)
	problem.Message = strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	p.problems = append(p.problems, problem)
}

func place(at *token.Token) Problem {
	if at == nil || at.Position == nil {
		return Problem{Line: 1, Column: 1}
	}
	return Problem{Line: max(at.Position.Line, 1), Column: max(at.Position.Column, 1)}
}

// byteOrderMark is what some editors put in front of UTF-8 (YAML 1.2 section 5.2).
var byteOrderMark = []byte("\xef\xbb\xbf")

// syntax returns the mapping that a text consists of; nil if there is none.
func (p *reader) syntax(text []byte) ast.Node {
	if len(text) > maxText {
		p.fail(nil, "the file has more than %d bytes, and no more are read", maxText)
		return nil
	}
	text = bytes.TrimPrefix(text, byteOrderMark)
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		p.fail(nil, "the file is in UTF-16; save it as UTF-8")
		return nil
	}
	tokens := lexer.Tokenize(string(text))
	if !p.shallow(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	var wrong *yaml.SyntaxError
	switch {
	case errors.As(err, &wrong):
		p.fail(wrong.Token, "%s", wrong.Message)
		return nil
	case err != nil:
		p.fail(nil, "%v", err)
		return nil
	}
	var root ast.Node
	for _, d := range file.Docs {
		switch {
		case d.Body == nil:
		case d.Body.Type() == ast.DirectiveType:
			p.fail(d.Body.GetToken(), "directives are not read; leave the line out")
		case root != nil:
			p.fail(start(d.Body), "a second document is not read; write one file for each switch")
			return root
		default:
			root = d.Body
		}
	}
	if root == nil && len(p.problems) == 0 {
		p.fail(nil, "the file is empty; it begins with `version: %d`", Version)
	}
	return root
}

// shallow refuses what would take the parser, which is recursive, too deep or too long.
func (p *reader) shallow(tokens token.Tokens) bool {
	depth, line, entries := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType:
			if t.Position.Line != line {
				line, entries = t.Position.Line, 0
			}
			entries++
		case token.MappingKeyType:
			p.fail(t, "a key written with \"? \" is not read; write it as `key: value`")
			return false
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			p.fail(t, "anchors, aliases and merges are not read; put common settings of ports under `defaults`")
			return false
		case token.TagType:
			p.fail(t, "tags are not read; quote what is a text")
			return false
		}
		if depth > maxDepth || entries > maxDepth || indented(t) {
			p.fail(t, "collections stand too deep in each other")
			return false
		}
	}
	return true
}

// indented reports whether a token is so far right at the start of its line that more levels
// stand above it than the format has.
func indented(t *token.Token) bool {
	return t.Position.IndentLevel > maxDepth
}

// pair is a key with its value.
type pair struct {
	key   string
	at    *token.Token // of the key
	value ast.Node
}

// pairs returns the entries of a mapping. What is no mapping is a problem; a key without a
// value is an empty mapping if empty may be.
func (p *reader) pairs(n ast.Node, what string) (all []pair, ok bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		p.fail(start(n), "%s is a mapping, of lines such as `key: value`", what)
		return nil, false
	}
	seen := make(map[string]bool)
	for _, v := range values {
		at := v.Key.GetToken()
		key, ok := scalar(v.Key)
		if !ok || v.Key.Type() == ast.NullType {
			p.fail(at, "a key is a text")
			continue
		}
		if seen[key] {
			p.fail(at, "%q is there twice", key)
			continue
		}
		seen[key] = true
		if v.Value == nil {
			p.fail(at, "%q has no value", key)
			continue
		}
		all = append(all, pair{key, at, v.Value})
	}
	return all, true
}

// scalar returns the text of a scalar as it was written.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.NullNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// start returns the first token of a node.
func start(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}

func isNull(n ast.Node) bool { return n == nil || n.Type() == ast.NullType }

// keys returns the keys of a document.
func (f *Format) keys() []string {
	all := []string{"version", "switch", "defaults", "ports"}
	for _, s := range f.Sections {
		all = append(all, s.Key)
	}
	return append(all, "features")
}

func (p *reader) document(root ast.Node) {
	all, ok := p.pairs(root, "the file")
	if !ok {
		return
	}
	byKey, sections := make(map[string]pair), p.keys()
	for _, s := range all {
		byKey[s.key] = s
		switch {
		case strings.HasPrefix(s.key, "x-"): // a user's own
		case !slices.Contains(sections, s.key):
			p.fail(s.at, "there is no section %q;%s use %s", s.key, maybe(s.key, sections), strings.Join(sections, ", "))
		}
	}
	p.version(byKey["version"], root)
	if s, ok := byKey["switch"]; ok {
		p.doc.Switch = p.settings(s, At("switch"), p.Switch, nil)
		if p.CheckSwitch != nil && !p.failedFrom(s.at) {
			if err := p.CheckSwitch(p.doc.Switch); err != nil {
				p.fail(s.at, "%v", err)
			}
		}
	}
	p.ports(byKey)
	for i := range p.Sections {
		p.items(&p.Sections[i], byKey[p.Sections[i].Key])
	}
	p.features(byKey["features"])
}

// failedFrom reports whether there are problems at or after a place.
func (p *reader) failedFrom(at *token.Token) bool {
	return slices.ContainsFunc(p.problems, func(q Problem) bool { return q.Line >= place(at).Line })
}

func (p *reader) version(s pair, root ast.Node) {
	if s.value == nil {
		p.fail(nil, "the version is missing; begin with `version: %d`", Version)
		return
	}
	text, _ := scalar(s.value)
	n, err := strconv.Atoi(text)
	if err == nil {
		err = checkVersion(n)
	} else {
		err = fmt.Errorf("the version is a number; write `version: %d`", Version)
	}
	if err != nil {
		p.fail(start(s.value), "%v", err)
	}
	p.doc.Version = n
}

// settings reads a mapping of settings. Keys that the fields lack are problems; kindsOf names
// the kinds of ports that have a key.
func (p *reader) settings(s pair, at Path, fields []setting.Field, kindsOf func(key string) []string) setting.Patch {
	patch := setting.Patch{}
	p.places[at] = place(s.at)
	if isNull(s.value) {
		return patch
	}
	all, _ := p.pairs(s.value, s.key)
	for _, one := range all {
		i := slices.IndexFunc(fields, func(f setting.Field) bool { return f.Key == one.key })
		if i < 0 {
			var kinds []string
			if kindsOf != nil {
				kinds = kindsOf(one.key)
			}
			p.fail(one.at, "%v", lacking(one.key, fields, kinds))
			continue
		}
		p.places[at+Path("/"+one.key)] = place(start(one.value))
		if v, ok := p.value(one, fields[i]); ok {
			patch[one.key] = v
		}
	}
	return patch
}

// value reads the value of a setting and returns its JSON.
func (p *reader) value(s pair, f setting.Field) (json.RawMessage, bool) {
	if isNull(s.value) {
		p.fail(s.at, "%s has no value; write one, or leave the key out; a list with commas in it is quoted", s.key)
		return nil, false
	}
	v, err := p.json(s.value, f)
	if err == nil {
		err = f.Check(v)
	}
	if err != nil {
		p.fail(start(s.value), "%s: %v", s.key, err)
		return nil, false
	}
	return v, true
}

// json converts a value to the JSON that a setting takes.
func (p *reader) json(n ast.Node, f setting.Field) (json.RawMessage, error) {
	schema := f.Schema()
	list, isList := n.(*ast.SequenceNode)
	word, _ := scalar(n)
	switch {
	case !isList && f.Unsets(word):
		return json.Marshal(word)
	case isList && textual(f):
		all, err := texts(list)
		if err != nil {
			return nil, err
		}
		return json.Marshal(strings.Join(all, ","))
	case schema.Type == "array":
		if !isList {
			return nil, errors.New("a list is needed; write it as [a, b]")
		}
		all, err := texts(list)
		if err != nil {
			return nil, err
		}
		parts := make([]json.RawMessage, len(all))
		for i, text := range all {
			if parts[i], err = jsonOf(text, schema.Items.Type, list.Values[i]); err != nil {
				return nil, err
			}
		}
		return json.Marshal(parts)
	case schema.Type == "object":
		all, ok := p.pairs(n, f.Key)
		if !ok {
			return nil, errors.New("a mapping is needed; write it as {key: value}")
		}
		values := make(map[string]string, len(all))
		for _, one := range all {
			text, ok := scalar(one.value)
			if !ok || isNull(one.value) {
				return nil, fmt.Errorf("the value of %s is not a text", one.key)
			}
			values[one.key] = text
		}
		return json.Marshal(values)
	}
	text, ok := scalar(n)
	if !ok {
		return nil, errors.New("one value is needed, not a collection")
	}
	return jsonOf(text, schema.Type, n)
}

// texts returns the texts of a list of scalars.
func texts(list *ast.SequenceNode) (all []string, err error) {
	for _, e := range list.Values {
		text, ok := scalar(e)
		if !ok || isNull(e) {
			return nil, errors.New("the list has something other than single values in it")
		}
		all = append(all, text)
	}
	return all, nil
}

// jsonOf converts a scalar to a type of JSON.
func jsonOf(text, typ string, n ast.Node) (json.RawMessage, error) {
	_, quoted := n.(*ast.StringNode)
	switch typ {
	case "boolean":
		on, err := setting.ParseBool(text)
		if err != nil || text == "" {
			return nil, fmt.Errorf("%q is neither; write true or false", text)
		}
		return json.Marshal(on)
	case "integer":
		base := 10
		digits := strings.TrimPrefix(text, "-")
		switch {
		case strings.HasPrefix(text, "0x"):
			digits, base = text[2:], 16
		case len(digits) > 1 && digits[0] == '0':
			return nil, fmt.Errorf("%s can be read as octal; write it without the 0 in front", text)
		}
		v, err := strconv.ParseUint(digits, base, 64)
		switch {
		case err != nil && errors.Is(err, strconv.ErrRange):
			return nil, fmt.Errorf("%s is out of range", text)
		case err != nil:
			return nil, fmt.Errorf("%q is not a whole number", text)
		case text[0] == '-':
			return fmt.Appendf(nil, "-%d", v), nil
		}
		return fmt.Appendf(nil, "%d", v), nil
	}
	if _, isBool := n.(*ast.BoolNode); isBool && !quoted && text != "true" && text != "false" {
		return nil, fmt.Errorf("%q is written in another way; use true or false", text)
	}
	return json.Marshal(text)
}

// ports reads the sections defaults and ports.
func (p *reader) ports(byKey map[string]pair) {
	everything := p.Ports.Settings()
	fields := make([]setting.Field, len(everything))
	kinds := make(map[string][]string)
	for i, s := range everything {
		fields[i] = s.Field
		kinds[s.Key] = s.Kinds
	}
	var defaults setting.Patch
	if s, ok := byKey["defaults"]; ok {
		defaults = p.settings(s, At("defaults"), fields, nil)
	}
	s, ok := byKey["ports"]
	if !ok {
		return
	}
	p.places[At("ports")] = place(s.at)
	p.doc.Ports = make(map[string]setting.Patch)
	if isNull(s.value) {
		return
	}
	all, _ := p.pairs(s.value, s.key)
	byKind := make(map[string][]setting.Field)
	for _, one := range all {
		kind := p.kind(one)
		if kind == "" {
			continue
		}
		of, ok := byKind[kind]
		if !ok {
			of = append([]setting.Field{kindField}, p.fieldsOf(kind)...)
			byKind[kind] = of
		}
		before := len(p.problems)
		patch := p.settings(one, At("ports", one.key), of, func(key string) []string { return kinds[key] })
		if len(p.problems) > before {
			continue
		}
		spec, err := p.spec(one.key, kind, patch, defaults, of)
		if err != nil {
			p.fail(one.at, "port %s: %v", one.key, err)
			continue
		}
		p.doc.Ports[one.key] = Of(spec)
	}
}

// kindField is the key kind of a port.
var kindField = setting.Fields(struct {
	Kind string `json:"kind" help:"kind of port"`
}{})[0]

// kind returns the kind of a port; it is empty if there is none such.
func (p *reader) kind(s pair) string {
	kind, at := DefaultKind, s.at
	if !isNull(s.value) {
		all, ok := p.peek(s.value)
		if !ok {
			p.fail(start(s.value), "a port is a mapping of its settings, such as {kind: tap, access: 10}")
			return ""
		}
		for _, one := range all {
			if one.key == "kind" {
				kind, _ = scalar(one.value)
				at = one.value.GetToken()
			}
		}
	}
	if p.Ports.Find(kind) == nil {
		p.fail(at, "there is no port kind %q;%s use one of %s", kind, maybe(kind, p.Ports.Names()), strings.Join(p.Ports.Names(), ", "))
		return ""
	}
	return kind
}

// peek is pairs without problems.
func (p *reader) peek(n ast.Node) ([]pair, bool) {
	quiet := &reader{}
	return quiet.pairs(n, "")
}

// spec returns the spec of a port whose settings stand over the defaults. As with set-port, a
// VLAN mode of the port replaces that of the defaults.
func (p *reader) spec(name, kind string, own, defaults setting.Patch, fields []setting.Field) (port.Spec, error) {
	delete(own, "kind")
	base := setting.Patch{}
	for _, f := range fields {
		v, ok := own[f.Key]
		if ok && f.Fixed { // Merge changes none
			base[f.Key] = v
		} else if v, has := defaults[f.Key]; has && !ok {
			base[f.Key] = v
		}
	}
	spec, err := p.Ports.Read(name, kind, base)
	if err != nil {
		return port.Spec{}, err
	}
	return p.Ports.Merge(spec, own)
}

// items reads a section of items.
func (p *reader) items(of *Section, s pair) {
	if s.value == nil {
		return
	}
	p.places[At(of.Key)] = place(s.at)
	if p.doc.Items == nil {
		p.doc.Items = make(map[string][]setting.Patch)
	}
	all := []setting.Patch{}
	fields, seen := of.fields(), make(map[string]bool)
	for i, one := range p.elements(of, s) {
		before := len(p.problems)
		at := At(of.Key, i)
		if of.Named {
			at = At(of.Key, one.key)
		}
		patch := p.settings(one, at, fields, nil)
		if of.Named {
			patch.Set(nameKey, one.key)
		}
		item, id, err := of.Read(patch)
		switch {
		case len(p.problems) > before:
		case err != nil:
			p.fail(one.at, "%v", err)
		case seen[id]:
			p.fail(one.at, "%s is there twice", id)
		default:
			seen[id] = true
			all = append(all, item)
		}
	}
	p.doc.Items[of.Key] = all
}

// elements returns the items of a section, each with its name or else the section's key.
func (p *reader) elements(of *Section, s pair) (all []pair) {
	switch list, isList := s.value.(*ast.SequenceNode); {
	case isNull(s.value):
	case of.Named:
		all, _ = p.pairs(s.value, s.key)
	case !isList:
		p.fail(start(s.value), "%s is a list of mappings, such as `- {port: vm0, …}`", s.key)
	default:
		for _, e := range list.Values {
			if isNull(e) {
				p.fail(list.GetToken(), "an element of %s is empty", s.key)
				continue
			}
			all = append(all, pair{s.key, start(e), e})
		}
	}
	return all
}

func (p *reader) features(s pair) {
	if s.value == nil {
		return
	}
	p.places[At("features")] = place(s.at)
	p.doc.Features = make(map[string]json.RawMessage)
	if isNull(s.value) {
		return
	}
	all, _ := p.pairs(s.value, s.key)
	for _, one := range all {
		p.places[At("features", one.key)] = place(one.at)
		if !slices.Contains(p.Features, one.key) {
			p.fail(one.at, "there is no feature %q%s", one.key, maybe(one.key, p.Features))
			continue
		}
		b, err := json.Marshal(p.any(one.value))
		if err != nil {
			p.fail(one.at, "%v", err)
			continue
		}
		p.doc.Features[one.key] = b
	}
}

// any converts a value of no known type, as YAML 1.2 does: what is neither true, false, null
// nor a decimal number is a text.
func (p *reader) any(n ast.Node) any {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return nil
	case *ast.SequenceNode:
		all := []any{}
		for _, e := range n.Values {
			all = append(all, p.any(e))
		}
		return all
	case *ast.MappingNode, *ast.MappingValueNode:
		all := make(map[string]any)
		pairs, _ := p.pairs(n, "a value")
		for _, one := range pairs {
			all[one.key] = p.any(one.value)
		}
		return all
	}
	text, ok := scalar(n)
	switch n.(type) {
	case *ast.BoolNode:
		if text == "true" || text == "false" {
			return text == "true"
		}
	case *ast.IntegerNode, *ast.FloatNode:
		if json.Valid([]byte(text)) {
			return json.Number(text)
		}
	}
	if !ok {
		p.fail(n.GetToken(), "this is not read here")
	}
	return text
}

// maybe suggests a name that is close to an unknown one.
func maybe(name string, names []string) string {
	if near := closest(name, names); near != "" {
		return " did you mean " + near + "?"
	}
	return ""
}

// closest returns the name that was probably meant; it is empty if none is close.
func closest(name string, names []string) (near string) {
	best := 0.88 // of 1, as for flags
	for _, n := range names {
		if like := smetrics.JaroWinkler(name, n, 0.7, 4); like > best {
			near, best = n, like
		}
	}
	return near
}
