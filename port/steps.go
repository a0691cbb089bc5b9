package port

import "slices"

// Steps are those of an opening so far, each as what undoes it, for when a later one fails. What
// another process still uses must not be undone.
type Steps []func()

// Undoable adds a step that was done.
func (s *Steps) Undoable(undo func()) { *s = append(*s, undo) }

// Undo undoes the steps, the last one first.
func (s *Steps) Undo() {
	for _, undo := range slices.Backward(*s) {
		undo()
	}
	*s = nil
}
