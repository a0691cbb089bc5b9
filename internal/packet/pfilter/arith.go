package pfilter

import (
	"fmt"
	"slices"
)

// relations are the operators that compare numbers.
var relations = []string{"=", "==", "!=", "<", "<=", ">", ">="}

// levels are the arithmetic operators, those that bind least first.
var levels = [][]string{{"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}}

// isOperator reports whether a token joins or compares numbers.
func isOperator(token string) bool {
	return slices.Contains(relations, token) || slices.ContainsFunc(levels, func(l []string) bool { return slices.Contains(l, token) })
}

// isNumber reports whether a comparison of numbers comes next, rather than an expression.
func (p *parser) isNumber() bool {
	word, next := p.peek(0), p.peek(1)
	_, isProto := headers[word]
	_, isConstant := constants[word]
	switch _, isLiteral := parseNumber(word); {
	case word == "len", word == "-":
		return true
	case isProto:
		return next == "["
	case isConstant, isLiteral:
		return isOperator(next) && (next != "/" || p.last == nil) // the latter is a network's
	case word != "(":
		return false
	}
	// A parenthesis belongs to numbers if an operator follows it.
	for at, open := 0, 0; at < len(p.tokens); at++ {
		switch p.tokens[at] {
		case "(":
			open++
		case ")":
			if open--; open == 0 {
				return isOperator(p.peek(at + 1))
			}
		}
	}
	return false
}

// comparison reads A = B and the like.
func (p *parser) comparison() (*node, error) {
	left, err := p.arithmetic(0)
	if err != nil {
		return nil, err
	}
	relation := p.take(relations...)
	if relation == "" {
		return nil, fmt.Errorf("a number is compared with another, as in: tcp[13] & 2 != 0")
	}
	right, err := p.arithmetic(0)
	if err != nil {
		return nil, err
	}
	n := &node{left: left, right: right}
	switch relation {
	case "=", "==":
		n.op = opEqual
	case "!=":
		n.op = opUnequal
	case ">":
		n.op = opAbove
	case ">=":
		n.op = opAtLeast
	case "<":
		n.op, n.left, n.right = opAbove, right, left
	case "<=":
		n.op, n.left, n.right = opAtLeast, right, left
	}
	return n, nil
}

// arithmetic reads an expression whose operators are of the given level or bind closer.
func (p *parser) arithmetic(level int) (*number, error) {
	if level == len(levels) {
		return p.factor()
	}
	left, err := p.arithmetic(level + 1)
	if err != nil {
		return nil, err
	}
	for {
		op := p.take(levels[level]...)
		if op == "" {
			return left, nil
		}
		right, err := p.arithmetic(level + 1)
		if err != nil {
			return nil, err
		}
		switch constant := right.op == 'c'; {
		case constant && right.constant == 0 && (op == "/" || op == "%"):
			return nil, fmt.Errorf("it divides by 0")
		case constant && right.constant > 31 && (op == "<<" || op == ">>"):
			return nil, fmt.Errorf("it shifts a number of 32 bits by %d", right.constant)
		}
		left = &number{op: op[0], a: left, b: right}
	}
}

// factor reads -A, (A), len, a number or bytes of a header.
func (p *parser) factor() (*number, error) {
	if err := p.term(); err != nil {
		return nil, err
	}
	word := p.next()
	if word == "-" || word == "(" {
		if err := p.deeper(); err != nil {
			return nil, err
		}
		defer func() { p.depth-- }()
	}
	if n, ok := parseNumber(word); ok {
		return &number{op: 'c', constant: n}, nil
	}
	if n, ok := constants[word]; ok {
		return &number{op: 'c', constant: n}, nil
	}
	if h, ok := headers[word]; ok && p.take("[") != "" {
		return p.bytes(word, h)
	}
	switch word {
	case "len":
		return &number{op: 'l'}, nil
	case "-":
		n, err := p.factor()
		return &number{op: 'n', a: n}, err
	case "(":
		n, err := p.arithmetic(0)
		if err == nil && p.take(")") == "" {
			err = fmt.Errorf("a parenthesis is not closed; add )")
		}
		return n, err
	case "":
		return nil, fmt.Errorf("a number is missing at its end")
	}
	return nil, fmt.Errorf("%q is no number; there are numbers, len, and bytes such as tcp[13] or ip[2:2]", word)
}

// bytes reads the rest of PROTO[AT] or PROTO[AT:SIZE].
func (p *parser) bytes(proto string, h header) (*number, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	at, err := p.arithmetic(0)
	if err != nil {
		return nil, err
	}
	n := &number{op: 'b', a: at, from: h, size: 1}
	if p.take(":") != "" {
		if n.size, _ = parseNumber(p.next()); n.size != 1 && n.size != 2 && n.size != 4 {
			return nil, fmt.Errorf("%s[...] reads 1, 2 or 4 bytes, as in: ip[2:2]", proto)
		}
	}
	if p.take("]") == "" {
		return nil, fmt.Errorf("a bracket is not closed; add ]")
	}
	return n, nil
}
