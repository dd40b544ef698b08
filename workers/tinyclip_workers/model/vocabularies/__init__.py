"""Vocabularies of students: trained, reduced, or changed from the teacher's."""
