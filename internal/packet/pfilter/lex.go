package pfilter

import (
	"fmt"
	"strconv"
	"strings"
)

// operators are the tokens that are no words. Longer ones come first.
var operators = []string{"&&", "||", "<<", ">>", "<=", ">=", "==", "!=", "(", ")", "[", "]", "!", "&", "|", "^", "<", ">", "=", "+", "-", "*", "/", "%", ":"}

// split cuts an expression into words and operators. A colon belongs to addresses, except
// in brackets; a minus sign between letters or digits belongs to a name or a range.
func split(text string) (tokens []string, err error) {
	brackets := 0
	for at := 0; at < len(text); {
		c := text[at]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			at++
			continue
		case isWord(c) || c == '\\' || c == ':' && brackets == 0:
			n := 1
			for at+n < len(text) && (isWord(text[at+n]) || text[at+n] == ':' && brackets == 0 ||
				text[at+n] == '-' && at+n+1 < len(text) && isWord(text[at+n+1])) {
				n++
			}
			tokens, at = append(tokens, text[at:at+n]), at+n
			continue
		}
		op := ""
		for _, o := range operators {
			if strings.HasPrefix(text[at:], o) {
				op = o
				break
			}
		}
		switch op {
		case "":
			return nil, fmt.Errorf("%q does not belong there", firstRune(text[at:]))
		case "[":
			brackets++
		case "]":
			brackets--
		}
		tokens, at = append(tokens, op), at+len(op)
	}
	return tokens, nil
}

func firstRune(s string) string { return string([]rune(s)[:1]) }

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '_'
}

// parseNumber reads a number as C writes it: 80, 0x50, 0120.
func parseNumber(s string) (uint32, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || strings.Contains(s, "_") ||
		len(s) > 1 && s[0] == '0' && (s[1]|0x20 == 'b' || s[1]|0x20 == 'o') {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 0, 32)
	return uint32(n), err == nil
}
