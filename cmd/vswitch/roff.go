package main

import (
	"fmt"
	"strings"
)

// manPage writes a manual page with the man(7) macros, which groff and mandoc read. Its
// methods take plain text and escape it.
type manPage struct{ b strings.Builder }

func newManPage(title, section string) *manPage {
	p := &manPage{}
	p.line(".TH %s %s \"\" \"vswitch %s\"", title, section, roff(buildVersion().Version))
	p.line(".nh")
	return p
}

func (p *manPage) line(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

// section begins a section; part begins a subsection.
func (p *manPage) section(title string) { p.line(".SH %s", roff(title)) }
func (p *manPage) part(title string)    { p.line(".SS %s", roff(title)) }

// item writes a term and its explanation, as paragraphs below it.
func (p *manPage) item(term, text string) {
	p.line(".TP\n\\fB%s\\fR", roff(term))
	for i, par := range strings.Split(text, "\n\n") {
		if i > 0 {
			p.line(".IP")
		}
		p.line("%s", roff(par))
	}
}

// text writes paragraphs, which empty lines separate. A paragraph whose lines all begin with
// four spaces is an example or a table and is printed unchanged.
func (p *manPage) text(text string) {
	for par := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		lines := strings.Split(strings.Trim(par, "\n"), "\n")
		for i, l := range lines {
			indented := strings.HasPrefix(l, "    ")
			if i == 0 || indented != strings.HasPrefix(lines[i-1], "    ") {
				if i > 0 && !indented {
					p.line(".fi\n.RE")
				}
				p.line(".PP")
				if indented {
					p.line(".RS 4\n.nf")
				}
			}
			p.line("%s", roff(strings.TrimPrefix(l, "    ")))
		}
		if strings.HasPrefix(lines[len(lines)-1], "    ") {
			p.line(".fi\n.RE")
		}
	}
}

func (p *manPage) String() string { return p.b.String() }

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// roff escapes text: no line becomes a request, and characters beyond ASCII become names.
func roff(text string) string {
	var b strings.Builder
	for i, l := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		if strings.HasPrefix(l, ".") {
			b.WriteString(`\&`)
		}
		for _, r := range roffEscapes.Replace(l) {
			if r < 0x80 {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\[u%04X]`, r)
			}
		}
	}
	return b.String()
}
