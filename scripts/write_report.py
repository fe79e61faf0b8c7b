"""write_report"""
