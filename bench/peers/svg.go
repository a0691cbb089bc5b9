package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Dimensions of the plot in pixels.
const (
	plotWidth = 860
	barsAt    = 210 // left end of the bars
	barsWidth = 430
	barHeight = 13
	barStep   = 16
	groupGap  = 9
	panelGap  = 34
)

// colours by peer, distinguishable for the colour-blind (Okabe and Ito).
var colours = []string{"#999999", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"}

// plot draws the results as bars: each is a ratio to the base with its spread, followed by
// the figure as text.
func (r *Results) plot(to io.Writer) error {
	p := plotter{colour: map[string]string{}}
	for i, t := range r.Peers {
		p.colour[t.Name] = colours[i%len(colours)]
	}
	for _, by := range media {
		for _, trips := range []bool{false, true} {
			var lines []*Line
			compared := false
			for _, l := range r.Lines {
				if l.Work.By == by && l.Work.Pattern.isTrip() == trips && l.worked() {
					lines = append(lines, l)
					compared = compared || l.Ratio != nil
				}
			}
			title := "Delivered, %s = 1, more is better"
			if trips {
				title = "Round trip p50, %s = 1, less is better"
			}
			if compared {
				p.panel(fmt.Sprintf(title, by.base()), lines)
			}
		}
	}
	if p.shapes.Len() == 0 {
		return errors.New("nothing to plot: a plot compares with the first switch of a work; leave it and another in -only")
	}
	p.legend(r)
	_, err := fmt.Fprintf(to, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="white"/>
%s<g style="paint-order:stroke" stroke="white" stroke-width="3">
%s</g>
</svg>
`, plotWidth, p.y+10, p.shapes.String(), p.texts.String())
	return err
}

// plotter draws from top to bottom, texts over shapes.
type plotter struct {
	shapes strings.Builder
	texts  strings.Builder
	y      int
	colour map[string]string
}

func (p *plotter) text(x, y int, style, format string, args ...any) {
	fmt.Fprintf(&p.texts, `<text x="%d" y="%d" %s>`, x, y, style)
	xml.EscapeText(&p.texts, fmt.Appendf(nil, format, args...)) // writing to a Builder cannot fail
	p.texts.WriteString("</text>\n")
}

func (p *plotter) panel(title string, lines []*Line) {
	most := 1.25
	for _, l := range lines {
		if l.Ratio != nil {
			most = max(most, l.Ratio.Max)
		}
	}
	x := func(ratio float64) float64 { return barsAt + ratio/most*barsWidth }

	p.y += panelGap
	p.text(barsAt, p.y-12, `font-weight="bold"`, "%s", title)
	top := p.y
	var last work
	for i, l := range lines {
		if l.Work != last {
			if last = l.Work; i > 0 {
				p.y += groupGap
			}
			p.text(barsAt-8, p.y+barHeight-2, `text-anchor="end"`, "%s", l.Work)
		}
		q := l.Ratio
		if l.Peer == l.Base {
			q = &Ratio{1, 1, 1}
		}
		if q == nil {
			continue
		}
		fmt.Fprintf(&p.shapes, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n",
			barsAt, p.y, x(q.Median)-barsAt, barHeight, p.colour[l.Peer])
		label := l.delivered()
		if l.Peer != l.Base {
			middle := float64(p.y) + barHeight/2.0
			fmt.Fprintf(&p.shapes, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="black"/>`+"\n", x(q.Min), middle, x(q.Max), middle)
			label = fmt.Sprintf("%s (%.2f)", label, q.Median)
		}
		p.text(int(x(q.Max))+5, p.y+barHeight-2, "", "%s", label)
		p.y += barStep
	}
	fmt.Fprintf(&p.shapes, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="black" stroke-dasharray="3 3"/>`+"\n", x(1), top-4, x(1), p.y)
}

func (p *plotter) legend(r *Results) {
	p.y += panelGap - 8
	for _, t := range r.Peers {
		fmt.Fprintf(&p.shapes, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", barsAt, p.y-barHeight+2, barHeight, barHeight, p.colour[t.Name])
		p.text(barsAt+barHeight+6, p.y, "", "%s: %s", t.Name, t.Version)
		p.y += barStep
	}
	m := r.Machine
	p.text(barsAt, p.y, `fill="#555"`, "%s, %d CPUs, kernel %s, %s; medians and spread of %d rounds of %g s",
		m.CPU, m.CPUs, m.Kernel, m.Started[:len("2006-01-02")], r.Rounds, r.Seconds)
	p.y += 4
}
